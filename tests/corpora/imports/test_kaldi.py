"""Kaldi's folders: commands are named and not run, and a wrong line is named with its file and number."""

from __future__ import annotations

from pathlib import Path

import pytest

from stages.core.errors import UserError
from stages.corpora.imports import kaldi
from tests.corpora.imports import speech


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return speech.kaldi(tmp_path / "train")


def test_each_recording_is_an_utterance(folder: Path):
    found = kaldi.read(folder)
    assert len(found.utterances) == 12
    first = found.utterances[0]
    assert (first.id, first.speaker, first.text, first.end) == ("s0-u0", "s0", "\u4f60\u597d s0-u0", None)
    assert found.left_out == {}


def test_segments_cut_recordings(folder: Path):
    (folder / "segments").write_text("s0-u0 s1-u0 0.1 0.5\ns0-u1 s1-u0 0 4e-1\n")
    found = kaldi.read(folder)
    cuts = [(each.id, each.speaker, each.audio.name, each.start, each.end) for each in found.utterances]
    assert cuts == [("s0-u0", "s0", "s1-u0.wav", 0.1, 0.5), ("s0-u1", "s0", "s1-u0.wav", 0.0, 0.4)]
    assert found.left_out["s1-u0"] == "no audio in wav.scp or segments"


@pytest.mark.parametrize(
    ("place", "why"),
    [
        pytest.param("touch ran && cat s0-u0.wav |", kaldi.COMMAND, id="a-command"),
        pytest.param("sox s0-u0.wav -t wav - | ", kaldi.COMMAND, id="a-command-and-a-space"),
        pytest.param("raw.ark:17", kaldi.ARCHIVE, id="an-archive"),
        pytest.param("absent.wav", "its audio is not there", id="no-file"),
        pytest.param("", "its audio is not there", id="nothing"),
    ],
)
def test_what_is_no_file_is_left_out_and_never_run(folder: Path, place: str, why: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(folder)
    speech.edit(folder / "wav.scp", f"s0-u0 {folder / 's0-u0.wav'}", f"s0-u0 {place}")
    found = kaldi.read(folder)
    assert found.left_out == {"s0-u0": why}
    assert len(found.utterances) == 11
    assert not (folder / "ran").exists()


def test_a_path_is_relative_to_the_folder_or_to_where_one_stands(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(folder.parent)
    speech.edit(folder / "wav.scp", str(folder / "s0-u0.wav"), "s0-u0.wav")
    speech.edit(folder / "wav.scp", str(folder / "s0-u1.wav"), "train/s0-u1.wav")
    assert len(kaldi.read(folder).utterances) == 12


def test_a_path_may_have_spaces(folder: Path):
    speech.put(folder / "my audio.wav")
    speech.edit(folder / "wav.scp", "s0-u0.wav", "my audio.wav")
    assert kaldi.read(folder).utterances[0].audio.name == "my audio.wav"


@pytest.mark.parametrize(
    ("file", "old", "new", "why"),
    [
        pytest.param("text", "s0-u0 \u4f60\u597d s0-u0\n", "", "no text", id="no-line"),
        pytest.param("text", "s0-u0 \u4f60\u597d s0-u0\n", "s0-u0\n", "no text", id="an-empty-text"),
        pytest.param("utt2spk", "s0-u0 s0\n", "", "no speaker", id="no-speaker"),
    ],
)
def test_what_is_incomplete_is_left_out(folder: Path, file: str, old: str, new: str, why: str):
    speech.edit(folder / file, old, new)
    assert kaldi.read(folder).left_out == {"s0-u0": why}


def test_texts_are_read_as_windows_saves_them_and_only_a_line_feed_ends_one(folder: Path):
    text = "\ufeff" + (folder / "text").read_text().replace("\n", "\r\n")
    (folder / "text").write_bytes(text.replace("\u4f60\u597d", "\u4f60\u2028\u597d\x0b\x85.", 1).encode())
    found = kaldi.read(folder)
    assert found.utterances[0].text == "\u4f60\u2028\u597d\x0b\x85. s0-u0"
    assert found.utterances[1].text == "\u4f60\u597d s0-u1"
    assert not found.left_out


@pytest.mark.parametrize("file", ["wav.scp", "text", "utt2spk"])
def test_a_missing_file_is_named(folder: Path, file: str):
    (folder / file).unlink()
    with pytest.raises(UserError, match=f"train/{file} is not there"):
        kaldi.read(folder)


@pytest.mark.parametrize(
    ("file", "line", "said"),
    [
        pytest.param("text", b"s0-u0 again", r"text line 13: the id 's0-u0' twice, first in .*text line 1", id="twice"),
        pytest.param("text", b"s9-u0 \xc4\xe3", r"text line 13: byte 7 is not UTF-8", id="gbk"),
        pytest.param(
            "segments", b"a s0-u0 0", "segments line 1: found 3 fields, wanted UTTERANCE REC", id="three-fields"
        ),
        pytest.param("segments", b"a s0-u0 0 1 2", "segments line 1: found 5 fields", id="a-channel"),
        pytest.param("segments", b"a s0-u0 x 1", "segments line 1: found 'x', wanted a time", id="no-number"),
        pytest.param("segments", b"a s0-u0 nan 1", "segments line 1: found 'nan', wanted a time", id="not-finite"),
        pytest.param("segments", b"a s0-u0 2 1", "line 1: found 2 to 1 s, wanted", id="backwards"),
        pytest.param("segments", b"a s0-u0 -1 1", "line 1: found -1 to 1 s, wanted", id="before-the-start"),
        pytest.param("segments", b"a call 0 1", "line 1: wav.scp has no recording 'call'", id="unknown"),
        pytest.param("segments", b"", "segments has no lines", id="empty"),
    ],
)
def test_a_line_that_cannot_be_is_refused_with_its_place(folder: Path, file: str, line: bytes, said: str):
    path = folder / file
    path.write_bytes((path.read_bytes() if path.exists() else b"") + line + b"\n")
    with pytest.raises(UserError, match=said) as caught:
        kaldi.read(folder)
    assert "\n" not in str(caught.value)
