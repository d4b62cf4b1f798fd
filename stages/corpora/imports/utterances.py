"""What every layout gives: utterances with audio, text and speaker, and why others were left out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from stages.core.errors import UserError
from stages.core.files import read_lines


@dataclass(frozen=True)
class Utterance:
    """One recording, or the part of one between two times in seconds."""

    id: str
    speaker: str
    text: str
    audio: Path
    start: float = 0
    end: float | None = None


@dataclass
class Found:
    """The utterances of a layout, and the id and reason of each that was left out."""

    utterances: list[Utterance] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    def add(self, utterance: Utterance) -> None:
        """Keep an utterance that has a text, a speaker and a file; leave others out."""
        if not utterance.text:
            self.left_out[utterance.id] = "no text"
        elif not utterance.speaker:
            self.left_out[utterance.id] = "no speaker"
        elif not utterance.audio.is_file():
            self.left_out[utterance.id] = "its audio is not there"
        else:
            self.utterances.append(utterance)


def rows(path: Path) -> Iterator[tuple[str, str]]:
    """Yield each line of a file that is not empty, with its place for messages.

    Raises:
        UserError: the file is not there, or not UTF-8.
    """
    for number, line in enumerate(read_lines(path), start=1):
        if line.strip():
            yield f"{path} line {number}", line


def gather_unique(pairs: Iterable[tuple[str, str, str]], what: str) -> dict[str, tuple[str, str]]:
    """Gather (place, id, value) by id, each with its place; no id may occur twice.

    Raises:
        UserError: an id stands there twice.
    """
    table: dict[str, tuple[str, str]] = {}
    for where, key, value in pairs:
        if key in table:
            raise UserError(f"{where}: {what} {key!r} twice, first in {table[key][0]}")
        table[key] = (where, value)
    return table


def read_keyed_lines(path: Path) -> dict[str, tuple[str, str]]:
    """Read lines that begin with an id: the rest of each by its id, with its place for messages.

    Raises:
        UserError: the file is not there, not UTF-8, or has an id twice.
    """
    split = ((where, line.split(maxsplit=1)) for where, line in rows(path))
    return gather_unique(((where, parts[0], parts[1].strip() if parts[1:] else "") for where, parts in split), "the id")
