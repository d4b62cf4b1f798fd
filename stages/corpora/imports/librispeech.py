"""LibriSpeech (openslr.org/12, CC-BY-4.0): PART/SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt beside the FLAC files.

The folder may be the whole set, or a part of it such as `test-clean`.
"""

from __future__ import annotations

from pathlib import Path

from stages.core.errors import UserError
from stages.corpora.imports.utterances import Found, Utterance, gather_unique, read_keyed_lines

TRANSCRIPTS = "*.trans.txt"


def read(folder: Path) -> Found:
    """Read every chapter below a folder.

    Raises:
        UserError: there is no transcript, or an id stands there twice.
    """
    transcripts = sorted(folder.rglob(TRANSCRIPTS))
    if not transcripts:
        raise UserError(f"{folder}: no {TRANSCRIPTS} below it")
    lines = [
        (where, id_, str(path.parent), text)
        for path in transcripts
        for id_, (where, text) in read_keyed_lines(path).items()
    ]
    gather_unique(((where, id_, text) for where, id_, _, text in lines), "the id")
    found = Found()
    for _, id_, place, text in lines:
        found.add(Utterance(id_, id_.split("-")[0], text, Path(place) / f"{id_}.flac"))
    return found
