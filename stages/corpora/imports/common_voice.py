"""Common Voice (commonvoice.mozilla.org, CC0): validated.tsv, or another table of it, and `clips/`.

A table has tabs between its fields and no field with a line's end in it; a quotation mark is a character of the
sentence, unless the whole field is in quotes, as spreadsheets write it.
"""

from __future__ import annotations

import re
from pathlib import Path

from stages.core.errors import UserError
from stages.core.files import safe_relative
from stages.corpora.imports.utterances import Found, Utterance, gather_unique, rows

TABLE = "validated.tsv"
COLUMNS = ("client_id", "path", "sentence")


def read(folder: Path) -> Found:
    """Read a table: `folder` is one, or the folder with validated.tsv.

    Raises:
        UserError: the table is not there, lacks a column, or a line has more or fewer fields than its header.
    """
    path, found = (folder / TABLE if folder.is_dir() else folder), Found()
    lines = ((where, [_unquote(cell) for cell in line.split("\t")]) for where, line in rows(path))
    where, header = next(lines, (str(path), []))
    if missing := [name for name in COLUMNS if name not in header]:
        raise UserError(f"{where}: no column {', '.join(missing)} among {', '.join(header) or 'none'}")
    at = {name: header.index(name) for name in COLUMNS}
    table = []
    for place, cells in lines:
        if len(cells) != len(header):
            raise UserError(f"{place}: found {len(cells)} fields, wanted the {len(header)} of the header")
        table.append((place, *(cells[at[name]] for name in COLUMNS)))
    gather_unique(((place, clip, "") for place, _, clip, _ in table), "the clip")
    for place, client, clip, sentence in table:
        audio = path.parent / "clips" / safe_relative(clip, place)
        found.add(Utterance(Path(clip).stem, client, sentence.strip(), _clip(audio)))
    return found


def _clip(path: Path) -> Path:
    """Complete a clip's file name, from which old tables omit the ending."""
    return path if path.suffix else path.with_suffix(".mp3")


def _unquote(cell: str) -> str:
    return cell[1:-1].replace('""', '"') if re.fullmatch(r'"(?:[^"]|"")*"', cell) else cell
