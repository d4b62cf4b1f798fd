"""Long recordings come to the evaluation split, with what is true of them, and change no other recording."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stages.core.errors import UserError
from stages.core.params.origins import SyntheticDataset
from stages.corpora import long, manifest
from stages.corpora.manifest import Recording
from stages.corpus import corpus

EVALUATION = {"emotional_prosody": 9, "speaker_trials": 6}  # one of each label; one voice's


def make(kind: str, folder: Path, count: int) -> Path:
    folder.mkdir()
    items = {"calibration": 1, "tuning": 1, "evaluation": EVALUATION.get(kind, 2)}
    settings = {"kind": kind, "path": f"stages/corpora/{kind}.py", "seed": 3, "items": items, "long": count}
    corpus(SyntheticDataset.model_validate(settings), folder)
    return folder


def added(folder: Path) -> list[Recording]:
    return [recording for recording in manifest.read(folder, "evaluation") if "long" in recording.id]


@pytest.fixture(autouse=True)
def _shorter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long, "SECONDS", (4.0, 7.0))


def test_all_that_was_there_keeps_its_bytes_and_what_is_added_is_the_same_each_time(tmp_path: Path):
    without, once, again = (make("hotword_commands", tmp_path / str(n), n and 2) for n in range(3))
    for file in [path for path in without.rglob("*") if path.is_file()]:
        assert (once / file.relative_to(without)).read_bytes().startswith(file.read_bytes())
    assert {path.name for path in (once / "wav").iterdir()} == {path.name for path in (again / "wav").iterdir()}
    assert (once / "evaluation.jsonl").read_bytes() == (again / "evaluation.jsonl").read_bytes()
    assert {path.name for path in once.iterdir()} == {path.name for path in without.iterdir()}


def test_they_are_as_long_as_wanted_and_their_truth_is_that_of_their_parts(tmp_path: Path):
    folder = make("hotword_commands", tmp_path / "made", 3)
    found = added(folder)
    assert [recording.seconds > wanted for recording, wanted in zip(found, (4, 5.5, 7), strict=True)] == [True] * 3
    for recording in found:
        samples, inside = recording.samples(), np.zeros(round(recording.seconds * manifest.SAMPLE_RATE), bool)
        for start, end in recording.segments:
            inside[int(start * manifest.SAMPLE_RATE) : int(end * manifest.SAMPLE_RATE)] = True
        assert np.mean(samples[inside] ** 2) > 2 * np.mean(samples[~inside] ** 2)
        assert 2 <= len(recording.segments) <= len(recording.text) / 4  # each command has four characters and more
        assert recording.hotwords[0] in recording.text


def test_one_has_one_label(tmp_path: Path):
    folder = make("emotional_prosody", tmp_path / "made", 2)
    assert [recording.label for recording in added(folder)] == ["angry", "disgusted"]
    assert min(recording.seconds for recording in added(folder)) > 4
    assert {recording.condition for recording in added(folder)} == {"long"}


def test_one_has_one_voice_where_voices_have_several_recordings(tmp_path: Path):
    folder = make("speaker_trials", tmp_path / "made", 1)
    [one] = added(folder)
    assert one.speaker
    assert one.speaker not in {r.speaker for r in manifest.read(folder, "evaluation") if r.id != one.id}
    assert one.seconds > 4


def test_what_not_all_parts_have_in_common_is_left_open_and_words_stay_apart(tmp_path: Path):
    texts = {"en": "go to floor two", "zh": "第二首歌"}
    parts = []
    for number, language in enumerate(("en", "en", "zh")):
        line = manifest.record(tmp_path, f"{number}", np.full(1600, 0.1), text=texts[language], language=language)
        parts.append(Recording(folder=tmp_path, **line.model_dump()))
    whole = long._join("whole", parts, tmp_path)
    assert whole.text == "go to floor two go to floor two第二首歌"
    assert whole.language == ""
    assert whole.seconds == pytest.approx(0.3)
    assert long._join("pair", parts[:2], tmp_path).language == "en"


def test_text_cannot_be_long(tmp_path: Path):
    with pytest.raises(UserError, match=r"datasets\.made\.long: found 1, wanted 0: the data set is text"):
        make("punctuated_text", tmp_path / "made", 1)
