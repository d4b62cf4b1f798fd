"""AISHELL-1 (openslr.org/33, Apache-2.0) and AISHELL-like folders: wav/PART/SPEAKER/ID.wav, and one transcript.

The folder may be `data_aishell`, or a part of it such as `data_aishell/wav/test`; the transcript is looked for above.
"""

from __future__ import annotations

from pathlib import Path

from stages.core.errors import UserError
from stages.corpora.imports.utterances import Found, Utterance, gather_unique, read_keyed_lines

TRANSCRIPTS = "transcript/*.txt"


def read(folder: Path) -> Found:
    """Read the WAV files of a folder and their lines of the transcript.

    Raises:
        UserError: there are no WAV files or no transcript, or a name or an id stands there twice.
    """
    paths = gather_unique(((str(path), path.stem, str(path)) for path in sorted(folder.rglob("*.wav"))), "a WAV file")
    if not paths:
        packed = f"; {archive} is still packed" if (archive := next(folder.rglob("*.tar.gz"), None)) else ""
        raise UserError(f"{folder}: no .wav file in it{packed}")
    above = (folder.absolute(), *folder.absolute().parents[:3])
    transcript = next((path for place in above for path in sorted(place.glob(TRANSCRIPTS))), None)
    if transcript is None:
        raise UserError(f"{folder}: no {TRANSCRIPTS} in it or above it, which says what is said")
    texts, found = read_keyed_lines(transcript), Found()
    for id_, (_, name) in paths.items():
        found.add(Utterance(id_, Path(name).parent.name, texts.get(id_, ("", ""))[1], Path(name)))
    return found
