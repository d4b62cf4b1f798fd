"""AISHELL's folders: the speaker is the folder, the transcript lies above."""

from __future__ import annotations

from pathlib import Path

import pytest

from stages.core.errors import UserError
from stages.corpora.imports import aishell
from tests.corpora.imports import speech

TEXT = "\u800c \u5bf9 \u697c\u5e02"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """data_aishell with two parts, of one speaker each."""
    folder = tmp_path / "data_aishell"
    for part, speaker in (("train", "S0002"), ("test", "S0764")):
        for number in range(2):
            speech.put(folder / "wav" / part / speaker / f"BAC009{speaker}W012{number}.wav")
    (folder / "transcript").mkdir()
    lines = [f"{path.stem} {TEXT}\n" for path in sorted(folder.rglob("*.wav"))]
    (folder / "transcript/aishell_transcript_v0.8.txt").write_text("".join(lines))
    return folder


def test_the_whole_set(folder: Path):
    found = aishell.read(folder)
    assert {(each.id, each.speaker, each.text) for each in found.utterances} == {
        (f"BAC009{speaker}W012{number}", speaker, TEXT) for speaker in ("S0002", "S0764") for number in range(2)
    }


def test_a_part_of_it(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(folder)
    assert {each.speaker for each in aishell.read(Path("wav/test")).utterances} == {"S0764"}


def test_audio_without_a_transcript_is_left_out(folder: Path):
    speech.put(folder / "wav/test/S0764/new.wav")
    assert aishell.read(folder).left_out == {"new": "no text"}


def test_speakers_that_are_still_packed_are_named(folder: Path):
    for path in folder.rglob("*.wav"):
        path.unlink()
    (folder / "wav/S0002.tar.gz").touch()
    with pytest.raises(UserError, match=r"no \.wav file in it; .*S0002\.tar\.gz is still packed"):
        aishell.read(folder)


def test_no_transcript_is_named(folder: Path):
    (folder / "transcript/aishell_transcript_v0.8.txt").unlink()
    with pytest.raises(UserError, match=r"no transcript/\*\.txt in it or above it"):
        aishell.read(folder)


def test_a_file_name_twice_is_refused(folder: Path):
    speech.put(folder / "wav/dev/S0001/BAC009S0764W0120.wav")
    with pytest.raises(UserError, match=r"a WAV file 'BAC009S0764W0120' twice, first in .*dev"):
        aishell.read(folder)
