"""LibriSpeech's folders: one transcript for each chapter, beside its FLAC files."""

from __future__ import annotations

from pathlib import Path

import pytest

from stages.core.errors import UserError
from stages.corpora.imports import librispeech
from tests.corpora.imports import speech


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two chapters, of one speaker each."""
    for chapter in ("61-70968", "121-121726"):
        place = tmp_path / "test-clean" / chapter.replace("-", "/")
        ids = [speech.put(place / f"{chapter}-000{number}.flac").stem for number in range(2)]
        (place / f"{chapter}.trans.txt").write_text("".join(f"{id_} HE BEGAN\n" for id_ in ids))
    return tmp_path / "test-clean"


@pytest.mark.parametrize("part", [".", "61"])
def test_a_set_and_a_part_of_it(folder: Path, part: str):
    found = librispeech.read(folder / part)
    assert {each.speaker for each in found.utterances} == ({"61", "121"} if part == "." else {"61"})
    assert found.utterances[0].text == "HE BEGAN"
    assert found.left_out == {}


def test_a_line_without_audio_is_left_out(folder: Path):
    (folder / "61/70968/61-70968-0001.flac").unlink()
    assert librispeech.read(folder).left_out == {"61-70968-0001": "its audio is not there"}


def test_no_transcript_is_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"no \*\.trans\.txt below it"):
        librispeech.read(tmp_path)


def test_an_id_in_two_chapters_is_refused(folder: Path):
    speech.edit(folder / "61/70968/61-70968.trans.txt", "61-70968-0001", "121-121726-0000")
    with pytest.raises(UserError, match=r"61-70968\.trans\.txt line 2: the id '121-121726-0000' twice, first in"):
        librispeech.read(folder)
