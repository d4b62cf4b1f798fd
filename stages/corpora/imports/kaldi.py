"""Kaldi's data folder: wav.scp, text and utt2spk, and segments where recordings hold several utterances.

`wav.scp` may have commands that write audio, which end in `|`. They are not run.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

from stages.core.errors import UserError
from stages.corpora.imports.utterances import Found, Utterance, read_keyed_lines

COMMAND = "a command in wav.scp, which is not run: convert the audio and name its files"
ARCHIVE = "a place in an archive in wav.scp: write its audio to files of their own"
Cut = tuple[str, float, float | None]  # the recording, and start and end of the utterance in it


def read(folder: Path) -> Found:
    """Read a data folder.

    Raises:
        UserError: a file is missing, a line is not as it should be, or an id stands there twice.
    """
    found = Found()
    if not (folder / "utt2spk").exists():
        raise UserError(
            f"{folder / 'utt2spk'} is not there, and no speaker may be in two splits; where they are not known, "
            "write a line `ID ID` for each utterance"
        )
    recordings, texts, speakers = (read_keyed_lines(folder / name) for name in ("wav.scp", "text", "utt2spk"))
    cuts = _segments(folder / "segments", recordings) if (folder / "segments").exists() else {}
    for id_, (recording, start, end) in (cuts or {key: (key, 0.0, None) for key in recordings}).items():
        place = recordings[recording][1]
        if reason := _explain_no_file(place):
            found.left_out[id_] = reason
            continue
        (_, text), (_, speaker) = texts.get(id_, ("", "")), speakers.get(id_, ("", ""))
        found.add(Utterance(id_, speaker, text, _path(folder, place), start, end))
    found.left_out |= {id_: "no audio in wav.scp or segments" for id_ in texts if id_ not in (cuts or recordings)}
    return found


def _explain_no_file(place: str) -> str | None:
    """Explain why an entry of wav.scp names no file, or return None."""
    if place.endswith("|") or place.startswith("|"):
        return COMMAND
    return ARCHIVE if re.search(r"\.ark:\d+$", place) else None


def _path(folder: Path, place: str) -> Path:
    """Find a file whose name is relative to the data folder or to the current one."""
    return folder / place if (folder / place).is_file() else Path(place)


def _segments(path: Path, recordings: dict[str, tuple[str, str]]) -> dict[str, Cut]:
    """Read the recording, the start and the end of each utterance.

    Raises:
        UserError: a line is not an utterance, a recording of wav.scp, and two times in order.
    """
    cuts: dict[str, Cut] = {}
    for id_, (where, rest) in read_keyed_lines(path).items():
        parts = rest.split()
        if len(parts) != 3:
            raise UserError(f"{where}: found {len(parts) + 1} fields, wanted UTTERANCE RECORDING START END")
        start, end = (_seconds(part, where) for part in parts[1:])
        if not 0 <= start < end:
            raise UserError(f"{where}: found {parts[1]} to {parts[2]} s, wanted a start of 0 or more and a later end")
        if parts[0] not in recordings:
            raise UserError(f"{where}: wav.scp has no recording {parts[0]!r}")
        cuts[id_] = (parts[0], start, end)
    if not cuts:
        raise UserError(f"{path} has no lines; remove it where each recording is one utterance")
    return cuts


def _seconds(text: str, where: str) -> float:
    try:
        seconds = float(text)
    except ValueError as e:
        raise UserError(f"{where}: found {text!r}, wanted a time in seconds") from e
    if not math.isfinite(seconds):
        raise UserError(f"{where}: found {text!r}, wanted a time in seconds")
    return seconds
