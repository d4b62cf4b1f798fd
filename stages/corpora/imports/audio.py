"""Audio of any rate, and number of channels, that libsndfile reads, as the 16 kHz mono WAV of manifests."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from stages.core.files import sha256
from stages.corpora.imports.utterances import Utterance
from stages.corpora.manifest import SAMPLE_RATE, Line, unusable, write_wav
from stages.corpora.resampling import resample

SHORTEST_SECONDS = 0.3  # less holds no word
LONGEST_SECONDS = 60.0  # more is no utterance: attention over it takes memory by the square


class UnusableError(Exception):
    """Why an utterance cannot be used, in a few words."""


def write(utterance: Utterance, folder: Path, name: str) -> tuple[Line, str]:
    """Write an utterance's audio to `folder / name`; a file that fits is copied.

    Returns:
        Its line of a manifest, and what the audio was if that is not 16 kHz and mono.

    Raises:
        UnusableError: it cannot be read, is empty, too short or too long.
    """
    try:
        with soundfile.SoundFile(utterance.audio) as f:
            seconds = _length(f, utterance)
            was = "" if _fits(f) else f"{f.samplerate} Hz with {f.channels} channel{'s' if f.channels > 1 else ''}"
            if f.format == "WAV" and f.subtype == "PCM_16" and _fits(f) and utterance.end is None:
                shutil.copyfile(utterance.audio, folder / name)
                digest = sha256(folder / name)
            else:
                samples = _samples(f, utterance)
                digest, seconds = write_wav(folder / name, samples), len(samples) / SAMPLE_RATE
    except (soundfile.SoundFileError, TypeError, ValueError) as e:  # the last two of a format without a header
        message = e.error_string if isinstance(e, soundfile.LibsndfileError) else str(e)
        raise UnusableError(f"its audio cannot be read ({message.strip().rstrip('.')})") from e
    facts = {"id": utterance.id, "text": utterance.text, "speaker": utterance.speaker}
    return Line(**facts, wav=name, seconds=seconds, sha256=digest), was


def _fits(file: Any) -> bool:
    return bool(file.samplerate == SAMPLE_RATE and file.channels == 1)


def _length(file: Any, utterance: Utterance) -> float:
    """Return the seconds of an utterance, which must be in its file.

    Raises:
        UnusableError: its end is after the file's, or it is too short or too long.
    """
    whole = file.frames / file.samplerate
    seconds = whole if utterance.end is None else utterance.end - utterance.start
    if utterance.end is not None and utterance.end > whole + 0.05:
        raise UnusableError("it ends after its recording")
    if seconds < SHORTEST_SECONDS:
        raise UnusableError(f"shorter than {SHORTEST_SECONDS} s")
    if seconds > LONGEST_SECONDS:
        raise UnusableError(f"longer than {LONGEST_SECONDS:.0f} s")
    return float(seconds)


def _samples(file: Any, utterance: Utterance) -> NDArray[np.float64]:
    """Read an utterance's samples at 16 kHz, the mean of the channels.

    Raises:
        UnusableError: one is no audio.
    """
    file.seek(round(utterance.start * file.samplerate))
    count = -1 if utterance.end is None else round((utterance.end - utterance.start) * file.samplerate)
    samples: NDArray[np.float64] = file.read(count, dtype="float64", always_2d=True).mean(axis=1)
    if unusable(samples) is not None:  # the same words for all, which are counted: no number or place of a sample
        scale = "; are they at the scale of 16-bit numbers?" if np.isfinite(samples).all() else ""
        raise UnusableError(f"its samples are not all numbers from -1 to 1{scale}")
    if len(samples) < SHORTEST_SECONDS * file.samplerate:  # a damaged file says more than it has
        raise UnusableError(f"shorter than {SHORTEST_SECONDS} s")
    resampled = resample(samples, SAMPLE_RATE, file.samplerate)
    return resampled * (32768 / 32767)  # libsndfile divides by the one, `write_wav` multiplies by the other
