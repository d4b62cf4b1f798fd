"""Manifests: JSON lines that name recordings and say what is true of them. The interface of every data set.

Each line has an `id`. Audio has `wav` (relative to the manifest), `seconds` and `sha256` of the WAV file.
What is known of it: `segments` ([start, end] of speech in seconds), `text` (what is said, or for
punctuation the punctuated text, which needs no audio), `label` (an emotion), `speaker` (who says it), `condition` (how
it was recorded, such as a kind of noise), `hotwords` (what a recognizer that takes a list of words is given: those that
are said first, then others). A data set is a folder with one manifest for each split.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, get_args

import numpy as np
import soundfile
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from stages.core.errors import UserError
from stages.core.files import check_sha256, read_lines, safe_relative, write_text
from stages.core.params.section import Sha256, Split
from stages.core.statistics import Groups

SAMPLE_RATE = 16_000
SPLITS: tuple[Split, ...] = get_args(Split)
Seconds = Annotated[float, Field(ge=0)]


class Line(BaseModel):
    """One recording, or one text, of a manifest."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    id: str = Field(min_length=1)
    wav: str | None = None
    seconds: Seconds = 0
    sha256: Sha256 | None = None
    segments: list[tuple[Seconds, Seconds]] = []
    text: str = ""
    label: str = ""
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
        """The WAV file.

        Raises:
            UserError: the line has none.
        """
        if self.wav is None:
            raise UserError(f"{self.folder}: {self.id} has no wav, and this model takes audio")
        return self.folder / self.wav

    def samples(self) -> NDArray[np.float32]:
        """The audio: float32 (samples,) in [-1, 1) at 16 kHz."""
        return read_wav(self.path)


def read_wav(path: Path) -> NDArray[np.float32]:
    """Mono 16 kHz audio as float32 (samples,).

    Raises:
        UserError: not a WAV file, or not 16 kHz, or not mono, or empty.
    """
    try:
        with soundfile.SoundFile(path) as f:
            found = f"{f.format} {f.samplerate} Hz, {f.channels} channel(s), {f.frames} samples"
            if f.format not in {"WAV", "WAVEX"} or f.samplerate != SAMPLE_RATE or f.channels != 1 or f.frames == 0:
                raise UserError(
                    f"{path}: found {found}; wanted a WAV file at {SAMPLE_RATE} Hz with 1 channel, not empty"
                )
            samples: NDArray[np.float32] = f.read(dtype="float32")
            return samples
    except soundfile.LibsndfileError as e:
        raise UserError(f"{path} is not a WAV file: {e.error_string}") from e


def write_wav(path: Path, samples: NDArray[np.float64]) -> str:
    """Write mono 16-bit PCM and return the file's SHA-256."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.round(np.clip(samples, -1, 1) * 32767).astype(np.int16), SAMPLE_RATE, subtype="PCM_16")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write(folder: Path, split: Split, lines: list[Line]) -> None:
    """Write one split's manifest."""
    text = "".join(line.model_dump_json(exclude_defaults=True) + "\n" for line in lines)
    write_text(folder / f"{split}.jsonl", text)


def read(folder: Path, split: Split) -> list[Recording]:
    """The recordings of one split.

    Raises:
        UserError: the manifest is missing, empty, or a line is not as the module's docstring says.
    """
    path = folder / f"{split}.jsonl"
    if not path.is_file():
        raise UserError(f"{path} is not there; a data set has {', '.join(f'{s}.jsonl' for s in SPLITS)}")
    recordings = []
    for number, text in enumerate(read_lines(path), start=1):
        try:
            line = Line.model_validate_json(text)
        except ValidationError as e:
            first = e.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise UserError(f"{path} line {number}: {where}: {first['msg']}") from e
        if line.wav is not None:
            safe_relative(line.wav, f"{path} line {number}")
        recordings.append(Recording(folder=folder, **line.model_dump()))
    if not recordings:
        raise UserError(f"{path} has no recordings")
    return recordings


def groups(recordings: Sequence[Recording]) -> Groups:
    """Return which recordings belong together."""
    return Groups(
        clusters=[r.speaker or r.id for r in recordings],
        speakers=[r.speaker for r in recordings],
        conditions=[r.condition for r in recordings],
    )


def check(folder: Path) -> None:
    """Read every manifest and WAV file of a data set.

    Raises:
        UserError: a WAV file is not as it should be, differs from its line, or stands in two splits.
    """
    seen: dict[str, str] = {}
    for split in SPLITS:
        for recording in read(folder, split):
            where = f"{folder / split}.jsonl: {recording.id}"
            content = recording.text if recording.sha256 is None else _checked(recording, where)
            if seen.setdefault(content, split) != split:
                raise UserError(f"{where} is also in {seen[content]}: splits must not share a recording")


def _checked(recording: Recording, where: str) -> str:
    """The digest of the recording's WAV file, which is as its line says."""
    if not recording.path.is_file():
        raise UserError(f"{where}: {recording.path} is not there")
    seconds, digest = len(recording.samples()) / SAMPLE_RATE, str(recording.sha256)
    check_sha256(recording.path, digest, where)
    if abs(seconds - recording.seconds) > 1e-3:
        raise UserError(f"{where}: found {seconds:.3f} s of audio, the manifest says {recording.seconds:.3f} s")
    return digest
