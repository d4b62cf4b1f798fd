"""Manifests: JSON lines that name recordings and say what is true of them. The interface of every data set.

Each line has an `id`. Audio has `wav` (relative to the manifest), `seconds` and `sha256` of the WAV file.
What is known of it: `segments` ([start, end] of speech in seconds), `text` (what is said, or for
punctuation the punctuated text, which needs no audio), `written` (the same as one writes it, with figures), `language`
(as SenseVoice names it, such as `zh`), `label` (an emotion), `event` (as SenseVoice names it, such as `BGM`), `speaker`
(who says it), `condition` (how it was recorded, such as a kind of noise), `hotwords` (what a recognizer that takes a
list of words is given: those that are said first, then others). A data set is a folder with one manifest for each
split.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import soundfile
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from stages.core.errors import UserError, from_library
from stages.core.files import check_sha256, read_lines, safe_relative, write_text
from stages.core.params.section import Sha256, Split

SAMPLE_RATE = 16_000
LARGEST_SAMPLE = 2.0
SPLITS: tuple[Split, ...] = ("calibration", "tuning", "evaluation")
FINAL: Split = "final"  # which a data set may have beside them: no stage reads it (stages/commands/final.py)
EDITION = 2  # of generated `final` splits: raise it when a choice has followed from what one said, and all are new
Seconds = Annotated[float, Field(ge=0)]


class Line(BaseModel):
    """One recording, or one text, of a manifest."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    id: str = Field(min_length=1)
    wav: str | None = None
    seconds: Seconds = 0
    sha256: Sha256 | None = None
    segments: list[tuple[Seconds, Seconds]] = []
    text: str = ""
    written: str = ""
    language: str = ""
    label: str = ""
    event: str = ""
    speaker: str = ""
    condition: str = ""
    hotwords: list[str] = []

    @model_validator(mode="after")
    def _whole(self) -> Line:
        audio = [self.wav is not None, self.seconds > 0, self.sha256 is not None]
        if any(audio) != all(audio):
            raise ValueError("wav, seconds (over 0) and sha256 go together")
        if not any(audio) and not self.text:
            raise ValueError("neither wav nor text")
        edges = [edge for segment in self.segments for edge in segment]
        if edges != sorted(edges) or (edges and edges[-1] > self.seconds + 1e-6):
            raise ValueError(f"segments must be ordered, disjoint and within {self.seconds} s, found {self.segments}")
        return self


class Recording(Line):
    """A line with the folder that its `wav` is relative to."""

    folder: Path

    @property
    def path(self) -> Path:
        """Return the path of the WAV file.

        Raises:
            UserError: the line has none.
        """
        if self.wav is None:
            raise UserError(f"{self.folder}: {self.id} has no wav, and this model takes audio")
        return self.folder / self.wav

    def samples(self) -> NDArray[np.float32]:
        """Read the audio: float32 (samples,) in [-1, 1) at 16 kHz."""
        return read_wav(self.path)


def read_wav(path: Path) -> NDArray[np.float32]:
    """Read mono 16 kHz audio as float32 (samples,).

    Raises:
        UserError: not a WAV file, or not 16 kHz, or not mono, or empty, or with a sample that is no audio.
    """
    with from_library(f"{path} is not a WAV file"), soundfile.SoundFile(path) as f:
        found = f"{f.format} {f.samplerate} Hz, {f.channels} channel(s), {f.frames} samples"
        if f.format not in {"WAV", "WAVEX"} or f.samplerate != SAMPLE_RATE or f.channels != 1 or f.frames == 0:
            raise UserError(f"{path}: found {found}; wanted a WAV file at {SAMPLE_RATE} Hz with 1 channel, not empty")
        samples: NDArray[np.float32] = f.read(dtype="float32")
    if (why := unusable(samples)) is not None:
        raise UserError(f"{path}: {why}")
    return samples


def unusable(samples: NDArray[np.floating]) -> str | None:
    """Find a sample that is no audio (of any shape, counted along the first axis); return why, or None.

    A float file may hold anything. Peaks a little over full scale are usual; twice as large is another scale.
    """
    wrong = ~(np.abs(samples) <= LARGEST_SAMPLE)
    if not wrong.any():
        return None
    at = tuple(axis[0] for axis in np.nonzero(wrong))
    scale = "; are they at the scale of 16-bit numbers?" if np.isfinite(samples[at]) else ""
    return f"found {samples[at]:g} as sample {at[0]}, wanted numbers from -1 to 1{scale}"


def content(samples: NDArray[np.float32]) -> str:
    """Compute a digest of the sound: the same for 16 bits, 24 bits or floats, whatever the file's header says.

    What was resampled, made louder or cut is another sound to it.
    """
    return hashlib.sha256(np.round(samples * 32768).astype(np.int32).tobytes()).hexdigest()


def write_wav(path: Path, samples: NDArray[np.float64]) -> str:
    """Write mono 16-bit PCM and return the file's SHA-256."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.round(np.clip(samples, -1, 1) * 32767).astype(np.int16), SAMPLE_RATE, subtype="PCM_16")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def record(folder: Path, id_: str, samples: NDArray[np.float64], **known: Any) -> Line:
    """Write a recording, float64 (samples,), into `folder` and return its line; known: the line's other fields."""
    wav = f"wav/{id_}.wav"
    seconds, digest = len(samples) / SAMPLE_RATE, write_wav(folder / wav, samples)
    return Line(id=id_, wav=wav, seconds=seconds, sha256=digest, **known)


def write(folder: Path, split: Split, lines: list[Line]) -> None:
    """Write one split's manifest."""
    text = "".join(line.model_dump_json(exclude_defaults=True) + "\n" for line in lines)
    write_text(folder / f"{split}.jsonl", text)


def read(folder: Path, split: Split) -> list[Recording]:
    """Read the recordings of one split.

    Raises:
        UserError: the manifest is missing, empty, has an id twice, or a line is not as the module's docstring says.
    """
    path = folder / f"{split}.jsonl"
    if not path.is_file():
        raise UserError(f"{path} is not there; a data set has {', '.join(f'{s}.jsonl' for s in SPLITS)}")
    recordings: list[Recording] = []
    lines: dict[str, int] = {}
    for number, text in enumerate(read_lines(path), start=1):
        try:
            line = Line.model_validate_json(text)
        except ValidationError as e:
            first = e.errors()[0]
            message = [*([".".join(map(str, first["loc"]))] if first["loc"] else []), first["msg"]]
            raise UserError(f"{path} line {number}: {': '.join(message)}") from e
        if line.wav is not None:
            safe_relative(line.wav, f"{path} line {number}")
        if lines.setdefault(line.id, number) != number:
            raise UserError(f"{path} line {number}: the id {line.id!r} is that of line {lines[line.id]} too")
        recordings.append(Recording(folder=folder, **line.model_dump()))
    if not recordings:
        raise UserError(f"{path} has no recordings")
    return recordings


def marks(recordings: Sequence[Recording]) -> Counter[str]:
    """Count the punctuation marks of texts, so that one can see which a model does not have."""
    return Counter(c for r in recordings for c in r.text if unicodedata.category(c).startswith("P"))


def seeds(seed: int, parts: Sequence[str], part: str) -> list[int]:
    """Return what the random generator of a part of a data set is seeded with; the sealed one has EDITION besides."""
    return [seed, parts.index(part), *([EDITION] if part == FINAL else [])]


def splits(folder: Path) -> list[Split]:
    """Return the splits of a data set: those that all have, and `final` where it is there."""
    return [*SPLITS, *([FINAL] if (folder / f"{FINAL}.jsonl").is_file() else [])]


def check(folder: Path) -> None:
    """Read every manifest and WAV file of a data set.

    Raises:
        UserError: a WAV file is not as it should be, differs from its line, or holds the same sound as another.
    """
    seen: dict[str, tuple[str, str]] = {}
    for split in splits(folder):
        check_split(folder, split, seen)


def check_split(folder: Path, split: Split, seen: dict[str, tuple[str, str]]) -> list[Recording]:
    """Read the recordings of one split and their WAV files; seen: what others hold, as `check` collects it.

    Raises:
        UserError: as `check` does.
    """
    recordings = read(folder, split)
    for recording in recordings:
        where = f"{folder / split}.jsonl: {recording.id}"
        if recording.wav is None:
            _refuse_twice(seen, recording.text, split, where, allowed=split)
        else:
            _refuse_twice(seen, content(_check_audio(recording, where)), split, where)
    return recordings


def _refuse_twice(
    seen: dict[str, tuple[str, str]], what: str, split: str, where: str, allowed: str | None = None
) -> None:
    """Note what a recording holds in `seen`, as (split, where), and refuse one that holds the same as another.

    allowed: the split that may hold it twice, as short sentences do stand twice in a text.

    Raises:
        UserError: it was seen before.
    """
    first_split, first = seen.setdefault(what, (split, where))
    if first == where or first_split == allowed:
        return
    share = "splits must not share a recording" if first_split != split else "it would count twice"
    raise UserError(f"{where} is the same as {first.rpartition('/')[2]}: {share}")


def _check_audio(recording: Recording, where: str) -> NDArray[np.float32]:
    """Check that a recording's WAV file is as its line says, and return the samples."""
    if not recording.path.is_file():
        raise UserError(f"{where}: {recording.path} is not there")
    samples = recording.samples()
    seconds = len(samples) / SAMPLE_RATE
    check_sha256(recording.path, str(recording.sha256), where)
    if abs(seconds - recording.seconds) > 1e-3:
        raise UserError(f"{where}: found {seconds:.3f} s of audio, the manifest says {recording.seconds:.3f} s")
    return samples
