"""How good a voice activity detector is: frames and segments against the fp32 baseline and the known truth."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.core.errors import UserError
from stages.core.files import read_json, write_json
from stages.core.statistics import Counts
from stages.corpora.manifest import Recording
from stages.models.accuracy import FSMN_VAD, SEGMENT_TOLERANCES_MS
from stages.models.fsmn_vad.network import FRAME_MS, read_config

Floats = NDArray[np.float32]

MODES, METRICS = FSMN_VAD
HEADLINE = "frame_agreement"


@dataclass(frozen=True)
class Outcome:
    """What the detector makes of one recording, in one mode.

    speech: probability of speech for each 10 ms frame, float32 (frames,).
    segments: [start, end] in milliseconds.
    """

    speech: Floats
    segments: list[list[int]]


@functools.cache
def speech_threshold(folder: Path) -> float:
    """Return the probability p at which FunASR calls a frame speech: p >= (1 - p) + speech_noise_thres."""
    threshold: float = (1 + read_config(folder)["model_conf"].get("speech_noise_thres", 0.6)) / 2  # FunASR's default
    return threshold


def measure(
    folder: Path, recordings: Sequence[Recording], references: Sequence[Outcome], outcomes: Sequence[Outcome]
) -> list[Counts]:
    """Count every metric of each recording as (numerator, denominator).

    Frames are 10 ms; miss rate is over speech frames, false-alarm rate over the others (NIST OpenSAD
    2015 evaluation plan). A segment is found if one of the other side has both its edges within the
    tolerance, each used once.

    Raises:
        UserError: no recording has `segments`: there is no truth to measure against.
    """
    if not any(recording.segments for recording in recordings):
        raise UserError(f"{recordings[0].folder}: found no segments in any line, wanted those of speech")
    threshold = speech_threshold(folder)
    return [_measured(threshold, *of_one) for of_one in zip(recordings, references, outcomes, strict=True)]


def _measured(threshold: float, recording: Recording, reference: Outcome, outcome: Outcome) -> Counts:
    length = min(len(reference.speech), len(outcome.speech))
    found, expected = outcome.speech[:length] >= threshold, reference.speech[:length] >= threshold
    truth = _truth_frames(recording, length)
    drift = np.abs(outcome.speech[:length] - reference.speech[:length])
    hits, misses, alarms = (int(x.sum()) for x in (found & truth, ~found & truth, found & ~truth))
    return {
        "frame_agreement": (int((found == expected).sum()), length),
        "posterior_mean_drift": (float(drift.sum()), length),
        "posterior_max_drift": (float(drift.max(initial=0)), 1),
        "truth_f1": (2 * hits, 2 * hits + misses + alarms),
        "truth_miss_rate": (misses, int(truth.sum())),
        "truth_false_alarm_rate": (alarms, int((~truth).sum())),
        **{f"segment_f1_{ms}ms": segment_f1(outcome.segments, reference.segments, ms) for ms in SEGMENT_TOLERANCES_MS},
    }


def _truth_frames(recording: Recording, length: int) -> NDArray[np.bool_]:
    """Tell of each frame whether the middle of its 25 ms analysis window is in speech."""
    centre = np.arange(length) * (FRAME_MS / 1000) + 0.0125
    inside = np.zeros(length, bool)
    for start, end in recording.segments:
        inside |= (centre >= start) & (centre < end)
    return inside


def segment_f1(found: Sequence[Sequence[int]], expected: Sequence[Sequence[int]], tolerance_ms: int) -> tuple[int, int]:
    """Count the F1 of segments as (2 * matched, found + expected); both sides are in order of time."""
    matched, start = 0, 0
    for segment in found:
        for i in range(start, len(expected)):
            if all(abs(a - b) <= tolerance_ms for a, b in zip(segment, expected[i], strict=True)):
                matched, start = matched + 1, i + 1
                break
    return 2 * matched, len(found) + len(expected)


def write_outcomes(folder: Path, mode: str, outcomes: Sequence[Outcome]) -> None:
    """Keep outcomes of one mode for `read_outcomes`."""
    np.savez_compressed(folder / f"{mode}.npz", *(o.speech for o in outcomes))
    write_json(folder / f"{mode}.json", [o.segments for o in outcomes])


def read_outcomes(folder: Path, mode: str) -> list[Outcome]:
    """Read what `write_outcomes` kept, in the same order."""
    segments = read_json(folder / f"{mode}.json")
    with np.load(folder / f"{mode}.npz") as speech:
        return [Outcome(speech[f"arr_{i}"], s) for i, s in enumerate(segments)]
