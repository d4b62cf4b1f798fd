"""Common Voice's tables: a quotation mark swallows no lines, and a wrong line is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from stages.core.errors import UserError
from stages.corpora.imports import common_voice
from tests.corpora.imports import speech

HEADER = "client_id\tpath\tsentence_id\tsentence\tup_votes"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Clips of three clients, in the two formats that there have been."""
    for name in ("a.mp3", "b.mp3", "c.wav"):
        speech.put(tmp_path / "clips" / name, rate=48_000)
    write(tmp_path, "one\ta.mp3\t1\tHello\t2", "two\tb\t2\tHi\t2", "three\tc.wav\t3\tHey\t2")
    return tmp_path


def write(folder: Path, *lines: str, header: str = HEADER, end: str = "\n") -> None:
    (folder / "validated.tsv").write_bytes(end.join([header, *lines, ""]).encode())


def test_validated_clips_by_client(folder: Path):
    found = common_voice.read(folder)
    facts = [(each.id, each.speaker, each.text, each.audio.name) for each in found.utterances]
    assert facts == [("a", "one", "Hello", "a.mp3"), ("b", "two", "Hi", "b.mp3"), ("c", "three", "Hey", "c.wav")]


def test_another_table_beside_the_clips(folder: Path):
    (folder / "validated.tsv").rename(folder / "test.tsv")
    assert len(common_voice.read(folder / "test.tsv").utterances) == 3


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        pytest.param('"Go', '"Go', id="one-mark-opens-nothing"),
        pytest.param('She said "go".', 'She said "go".', id="inside"),
        pytest.param('"Go", she said', '"Go", she said', id="at-the-start"),
        pytest.param('"She said ""go""."', 'She said "go".', id="as-a-spreadsheet-writes-it"),
        pytest.param("Wait\u2028here", "Wait\u2028here", id="a-line-separator"),
    ],
)
def test_quotation_marks(folder: Path, cell: str, text: str):
    write(folder, f"one\ta.mp3\t1\t{cell}\t2", "two\tb.mp3\t2\tHi\t2")
    assert [each.text for each in common_voice.read(folder).utterances] == [text, "Hi"]


def test_a_table_as_windows_saves_it(folder: Path):
    write(folder, "one\ta.mp3\t1\tHello\t2", header="\ufeff" + HEADER, end="\r\n")
    assert common_voice.read(folder).utterances[0].text == "Hello"


def test_what_is_incomplete_is_left_out(folder: Path):
    write(folder, "one\ta.mp3\t1\t \t2", "\tb.mp3\t2\tHi\t2", "three\td.mp3\t3\tHey\t2")
    found = common_voice.read(folder)
    assert found.left_out == {"a": "no text", "b": "no speaker", "d": "its audio is not there"}
    assert found.utterances == []


@pytest.mark.parametrize(
    ("line", "header", "said"),
    [
        pytest.param("one\ta.mp3\tHello", HEADER, "validated.tsv line 2: found 3 fields, wanted the 5 of", id="short"),
        pytest.param("one\ta.mp3\t1\tA\tB\t2", HEADER, "line 2: found 6 fields", id="a-tab-in-the-text"),
        pytest.param("", "client_id,path,sentence", "line 1: no column client_id, path, sentence among", id="commas"),
        pytest.param("", "", "validated.tsv: no column client_id, path, sentence among none", id="empty"),
        pytest.param("one\t../a.mp3\t1\tHello\t2", HEADER, r"line 2: the path '\.\./a\.mp3' would leave", id="outside"),
        pytest.param(
            "one\ta.mp3\t1\tA\t2\ntwo\ta.mp3\t1\tA\t2", HEADER, r"line 3: the clip 'a\.mp3' twice, first in", id="twice"
        ),
    ],
)
def test_a_line_that_cannot_be_is_refused_with_its_place(folder: Path, line: str, header: str, said: str):
    write(folder, line, header=header)
    with pytest.raises(UserError, match=said):
        common_voice.read(folder)
