"""Names that only a list can tell apart, of speakers and splits that share nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stages.corpora import hotword_commands, manifest, spoken_commands
from stages.corpora.espeak import speak
from stages.corpora.hotword_commands import HOMOPHONES, LISTED, sound


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    hotword_commands.make(1, {"calibration": 3, "tuning": 3, "evaluation": 6}, folder)
    return folder


def test_it_is_a_data_set_and_the_same_bytes_each_time(made: Path, tmp_path: Path):
    manifest.check(made)
    hotword_commands.make(1, {"calibration": 3, "tuning": 3, "evaluation": 6}, tmp_path)
    assert (tmp_path / "evaluation.jsonl").read_bytes() == (made / "evaluation.jsonl").read_bytes()


def test_a_list_begins_with_what_is_said_and_has_names_that_sound_like_it(made: Path):
    for recording in manifest.read(made, "evaluation"):
        said, *others = recording.hotwords
        assert said in recording.text
        assert len(recording.hotwords) == len(set(recording.hotwords)) == LISTED
        assert not [other for other in others if other in recording.text]
        assert any(sound(other) == sound(said) for other in others)


def test_a_name_is_of_one_split(made: Path):
    said = {split: {r.hotwords[0] for r in manifest.read(made, split)} for split in manifest.SPLITS}
    assert not said["evaluation"] & said["tuning"]
    assert not said["evaluation"] & said["calibration"]
    for split, names in said.items():
        assert {spoken_commands.part_of(name, hotword_commands.SHARES) for name in names} == {split}


@pytest.mark.parametrize("group", HOMOPHONES)
def test_no_audio_tells_characters_of_a_group_apart(group: str):
    first, *others = (speak(f"给小{c}打电话", "cmn") for c in group)
    assert all(np.array_equal(first, other) for other in others)
