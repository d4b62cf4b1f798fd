"""Labelled mixtures for voice activity detection: real utterances between silences, under synthetic noise.

Where the speech comes from:
- `fasr` on the package index (Apache-2.0): two Mandarin recordings, 70 s and 4 s.
- `pocketsphinx`'s source distribution (BSD-2-Clause): read English from LibriVox (public domain) and
  short English commands and numbers.

The recordings are cut into utterances at their pauses by energy, so every boundary in a mixture is
known to the sample. Each recording belongs to one split, so no speaker or channel is in two.
"""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from stages.core import progress
from stages.core.errors import UserError
from stages.core.params.origins import MixturesDataset
from stages.core.params.section import Split
from stages.corpora.manifest import SAMPLE_RATE, Line, write, write_wav

Samples = NDArray[np.float64]

# archive, member, split. The five LibriVox files are one reading and stay together.
_LIBRIVOX = "pocketsphinx-5.1.1/test/data/librivox/sense_and_sensibility_01_austen_64kb-"
_ENGLISH = "pocketsphinx-5.1.1/test/data/"
RECORDINGS: tuple[tuple[str, str, Split], ...] = (
    ("mandarin", "fasr/asset/example/vad_example.wav", "evaluation"),
    *(("english", f"{_LIBRIVOX}{number}.wav", "evaluation") for number in ("0870", "0880", "0890", "0920", "0930")),
    ("mandarin", "fasr/asset/example/asr_example.wav", "calibration"),
    *(("english", f"{_ENGLISH}cards/00{number}.wav", "calibration") for number in range(1, 6)),
    *(("english", f"{_ENGLISH}forever/input_{number}_16k.wav", "calibration") for number in (2, 4)),
    ("english", f"{_ENGLISH}something.raw", "calibration"),
    ("english", f"{_ENGLISH}goforward.raw", "tuning"),
    ("english", f"{_ENGLISH}numbers.raw", "tuning"),
)
WHOLE = "fasr/asset/example/vad_example.wav"  # also evaluated as it is, with the pauses that people make

FRAME = SAMPLE_RATE // 100
SPEECH_OVER_FLOOR_DB = 15  # a frame this far above the recording's floor is speech
BRIDGE_FRAMES = 25  # a shorter pause is part of an utterance
SHORTEST_FRAMES = 30
LONGEST_SECONDS = 6.0
MIXTURE_SECONDS = 10.0
LEVEL_DBFS = -26.0  # ITU-T P.56 active speech level that telephony tests use
NOISES = ("white", "pink", "brown", "hum", "clicks")


def make(dataset: MixturesDataset, archives: Mapping[str, Path], folder: Path) -> None:
    """Write WAV files and the manifests of all splits into `folder`. The same seed gives the same bytes.

    Raises:
        UserError: an archive lacks a recording.
    """
    utterances: dict[Split, list[Samples]] = {split: [] for split in dataset.mixtures}
    extra: dict[Split, list[Line]] = {split: [] for split in dataset.mixtures}
    recordings = {
        name: _read_archive(path, [m for a, m, _ in RECORDINGS if a == name]) for name, path in archives.items()
    }
    for archive, member, split in RECORDINGS:
        samples = recordings[archive][member]
        segments = find_utterances(samples)
        utterances[split] += [
            samples[start:end] for start, end in segments if end - start < LONGEST_SECONDS * SAMPLE_RATE
        ]
        if member == WHOLE:
            extra[split].append(_write(folder, Path(member).stem, samples, segments))
    for index, (split, count) in enumerate(dataset.mixtures.items()):
        rng = np.random.default_rng([dataset.seed, index])
        lines = [
            _mixture(f"{split}-{n:03d}", utterances[split], dataset.snr_db, rng, folder)
            for n in progress.each(range(count), split)
        ]
        write(folder, split, lines + extra[split])


def find_utterances(samples: Samples) -> list[tuple[int, int]]:
    """Sample ranges [start, end) of speech in a clean recording, by frame energy over the noise floor."""
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
    """The 16 kHz recordings inside a wheel or, in one pass, a source distribution."""
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
    """Samples of a WAV file or, for `.raw`, of headerless 16-bit PCM."""
    if name.endswith(".raw"):
        return np.frombuffer(data, "<i2") / 32768.0
    samples: Samples = soundfile.read(io.BytesIO(data), dtype="float64")[0]
    return samples


def _mixture(
    id_: str, utterances: Sequence[Samples], snr_db: Sequence[float], rng: np.random.Generator, folder: Path
) -> Line:
    """Utterances at one level, 0.4 to 2 s of silence around each, then noise at an SNR over all of it."""
    pieces: list[Samples] = []
    segments: list[tuple[int, int]] = []
    position = 0
    while position < MIXTURE_SECONDS * SAMPLE_RATE:
        pause = np.zeros(int(rng.uniform(0.4, 2.0) * SAMPLE_RATE))
        utterance = _level(utterances[int(rng.integers(len(utterances)))])
        segments.append((position + len(pause), position + len(pause) + len(utterance)))
        pieces += [pause, utterance]
        position = segments[-1][1]
    samples = np.concatenate([*pieces, np.zeros(int(rng.uniform(0.4, 2.0) * SAMPLE_RATE))])
    noise = _noise(NOISES[int(rng.integers(len(NOISES)))], len(samples), rng)
    level = 10 ** ((LEVEL_DBFS - snr_db[int(rng.integers(len(snr_db)))]) / 20)
    gain = 10 ** (rng.uniform(-10, 6) / 20)
    return _write(folder, id_, gain * (samples + noise * level / np.sqrt(np.mean(noise**2))), segments)


def _level(samples: Samples) -> Samples:
    """The utterance at the reference level, with 5 ms fades so that its edges do not click."""
    samples = samples * 10 ** (LEVEL_DBFS / 20) / np.sqrt(np.mean(samples**2))
    fade = np.linspace(0, 1, SAMPLE_RATE // 200)
    samples[: len(fade)] *= fade
    samples[-len(fade) :] *= fade[::-1]
    return samples


def _noise(kind: str, length: int, rng: np.random.Generator) -> Samples:
    """Noise of a named kind, of any level. No babble: it is speech."""
    white = rng.standard_normal(length)
    if kind == "white":
        return white
    if kind == "hum":
        t = np.arange(length) / SAMPLE_RATE
        mains = sum(np.sin(2 * np.pi * 50 * k * t + rng.uniform(0, 2 * np.pi)) / k for k in range(1, 8))
        return np.asarray(mains + 0.05 * white)
    if kind == "clicks":
        hits = (rng.random(length) < 6 / SAMPLE_RATE) * rng.uniform(0.3, 1, length)
        decay = np.exp(-np.arange(SAMPLE_RATE // 20) / (SAMPLE_RATE / 400))
        ring = decay * rng.standard_normal(len(decay))
        return np.asarray(np.convolve(hits, ring)[:length] * 8 + 0.02 * white)
    slope = {"pink": 0.5, "brown": 1.0}[kind]
    spectrum = np.fft.rfft(white)
    shape = np.maximum(np.arange(len(spectrum)), 10.0 * length / SAMPLE_RATE) ** -slope
    return np.fft.irfft(spectrum * shape, length)


def _write(folder: Path, id_: str, samples: Samples, segments: Sequence[tuple[int, int]]) -> Line:
    wav = f"wav/{id_}.wav"
    digest = write_wav(folder / wav, samples)
    in_seconds = [(start / SAMPLE_RATE, end / SAMPLE_RATE) for start, end in segments]
    return Line(id=id_, wav=wav, seconds=len(samples) / SAMPLE_RATE, segments=in_seconds, sha256=digest)
