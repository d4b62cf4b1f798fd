"""Real speech that two archives of the package index carry, cut into utterances at its pauses.

- `fasr` (Apache-2.0): two Mandarin recordings, 70 s and 4 s.
- `pocketsphinx`'s source distribution (BSD-2-Clause): read English from LibriVox (public domain), English commands,
  cards and digits, one call at 8 kHz and one recording at 11 kHz.

Eight speakers at most: who speaks is not said for most, so recordings that look like one session, or one developer's,
count as one speaker and are in one split. Left out is `vad/test-audio.raw`, half a second without a pause.
"""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from stages.core.errors import UserError
from stages.core.params.section import Split
from stages.corpora.manifest import SAMPLE_RATE
from stages.corpora.resampling import resample

Samples = NDArray[np.float64]

FRAME = SAMPLE_RATE // 100
SPEECH_OVER_FLOOR_DB = 15  # a frame this far above the recording's floor is speech
BRIDGE_FRAMES = 25  # a shorter pause is part of an utterance
SHORTEST_FRAMES = 30
LONGEST_SECONDS = 6.0

_DATA = "pocketsphinx-5.1.1/test/data/"
_LIBRIVOX = f"{_DATA}librivox/sense_and_sensibility_01_austen_64kb-"


@dataclass(frozen=True)
class Speaker:
    """Who speaks in some members of an archive."""

    name: str
    part: Split
    archive: str
    members: tuple[str, ...]


SPEAKERS = (
    Speaker("mandarin-1", "evaluation", "mandarin", ("fasr/asset/example/vad_example.wav",)),
    Speaker(
        *("librivox", "evaluation", "english"),
        tuple(f"{_LIBRIVOX}{number}.wav" for number in ("0870", "0880", "0890", "0920", "0930")),
    ),
    Speaker("call", "evaluation", "english", (f"{_DATA}vad/leak-test.wav",)),
    Speaker("mandarin-2", "calibration", "mandarin", ("fasr/asset/example/asr_example.wav",)),
    Speaker("cards", "calibration", "english", tuple(f"{_DATA}cards/00{number}.wav" for number in range(1, 6))),
    Speaker(
        *("forever", "calibration", "english"),
        tuple(f"{_DATA}forever/input_{number}_16k.wav" for number in (2, 4)),
    ),
    Speaker(
        *("developer", "tuning", "english"),
        tuple(f"{_DATA}{name}.raw" for name in ("goforward", "numbers", "something", "tidigits/dhd.2934z")),
    ),
    Speaker("channel-3", "final", "english", ("pocketsphinx-5.1.1/test/regression/chan3.wav",)),
)


def read(archives: Mapping[str, Path]) -> dict[str, list[Samples]]:
    """Return the recordings of every speaker by name, float64 (samples,) at 16 kHz.

    Raises:
        UserError: an archive lacks a recording.
    """
    members: dict[str, list[str]] = {name: [] for name in archives}
    for speaker in SPEAKERS:
        members[speaker.archive] += speaker.members
    recordings = {name: _read_archive(path, members[name]) for name, path in archives.items()}
    return {s.name: [recordings[s.archive][member] for member in s.members] for s in SPEAKERS}


def speakers(part: Split) -> list[Speaker]:
    """Return the speakers of a part."""
    return [speaker for speaker in SPEAKERS if speaker.part == part]


def cut(recordings: Sequence[Samples]) -> list[Samples]:
    """Cut some recordings into utterances, without long ones, which may have pauses inside."""
    return [
        samples[start:end]
        for samples in recordings
        for start, end in find_utterances(samples)
        if end - start < LONGEST_SECONDS * SAMPLE_RATE
    ]


def find_utterances(samples: Samples) -> list[tuple[int, int]]:
    """Find sample ranges [start, end) of speech in a clean recording, by frame energy over the noise floor."""
    frames = samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME)
    energy = 10 * np.log10(np.mean(frames**2, axis=1) + 1e-10)
    loud = energy > max(np.percentile(energy, 5), -65) + SPEECH_OVER_FLOOR_DB
    starts = np.flatnonzero(np.diff(loud.astype(int), prepend=0) == 1)
    ends = np.flatnonzero(np.diff(loud.astype(int), append=0) == -1) + 1
    merged: list[tuple[int, int]] = []
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        if merged and start - merged[-1][1] < BRIDGE_FRAMES:
            merged[-1] = (merged[-1][0], end)
        else:
            merged.append((start, end))
    return [(start * FRAME, end * FRAME) for start, end in merged if end - start >= SHORTEST_FRAMES]


def _read_archive(archive: Path, members: Sequence[str]) -> dict[str, Samples]:
    """Read recordings inside a wheel or, in one pass, a source distribution."""
    found: dict[str, Samples] = {}
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as z:
            found = {name: _decode(name, z.read(name)) for name in members if name in z.namelist()}
    else:
        with tarfile.open(archive, "r|*") as t:
            for entry in t:
                if entry.name in members and (f := t.extractfile(entry)) is not None:
                    found[entry.name] = _decode(entry.name, f.read())
    missing = set(members) - set(found)
    if missing:
        raise UserError(f"{archive.name}: no recording {', '.join(sorted(missing))}")
    return found


def _decode(name: str, data: bytes) -> Samples:
    """Return the samples at 16 kHz of a WAV file or, for `.raw`, of headerless 16-bit PCM at that rate."""
    if name.endswith(".raw"):
        return np.frombuffer(data, "<i2") / 32768.0
    samples, rate = soundfile.read(io.BytesIO(data), dtype="float64")
    return resample(samples, SAMPLE_RATE, rate)
