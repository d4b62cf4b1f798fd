"""Commands whose language, manner, background and figures are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stages.corpora import manifest, spoken_commands, tagged_commands
from stages.corpora.manifest import SAMPLE_RATE
from stages.corpora.tagged_commands import EMOTIONS, EVENTS, LANGUAGES


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    tagged_commands.make(1, {"calibration": 3, "tuning": 3, "evaluation": 24}, folder)
    return folder


def test_it_is_a_data_set_and_the_same_bytes_each_time(made: Path, tmp_path: Path):
    manifest.check(made)
    tagged_commands.make(1, {"calibration": 3, "tuning": 3}, tmp_path)
    for split in ("calibration", "tuning"):
        assert (tmp_path / f"{split}.jsonl").read_bytes() == (made / f"{split}.jsonl").read_bytes()


def test_every_recording_has_a_truth_for_each_tag_and_figures_where_it_is_written(made: Path):
    recordings = manifest.read(made, "evaluation")
    assert {r.language for r in recordings} == set(LANGUAGES)
    assert {r.label for r in recordings} == set(EMOTIONS)
    assert {r.event for r in recordings} == set(EVENTS)
    for recording in recordings:
        assert not any(c.isdigit() and c.isascii() for c in recording.text)
        assert any(c.isdigit() and c.isascii() for c in recording.written)


@pytest.mark.parametrize(
    ("language", "number", "words"),
    [
        ("zh", 7, "七"),
        ("zh", 10, "十"),
        ("zh", 14, "十四"),
        ("zh", 52, "五十二"),
        ("en", 8, "eight"),
        ("en", 13, "thirteen"),
        ("en", 40, "forty"),
        ("en", 52, "fifty two"),
        ("ja", 11, "じゅういち"),
        ("ja", 90, "きゅうじゅう"),
    ],
)
def test_numbers_are_spelled(language: str, number: int, words: str):
    assert LANGUAGES[language].spell(number) == words


def test_a_number_has_words_of_its_own():
    for language in LANGUAGES.values():
        assert len({language.spell(number) for number in range(1, 100)}) == 99


@pytest.mark.parametrize("part", ["training", "calibration", "tuning", "evaluation", "final"])
def test_a_sentence_is_of_one_part(part: spoken_commands.Part):
    rng = np.random.default_rng(0)
    drawn = [tagged_commands.sentence(name, part, rng)[0] for name in LANGUAGES for _ in range(5)]
    assert {spoken_commands.part_of(text) for text in drawn} == {part}


def test_events_sound_different_and_speech_alone_adds_nothing():
    rng = np.random.default_rng(0)
    assert not tagged_commands.sound("Speech", 100, rng).any()
    spectra = {}
    for event in ("BGM", "Applause"):
        power = np.abs(np.fft.rfft(tagged_commands.sound(event, 3 * SAMPLE_RATE, rng))) ** 2
        spectra[event] = float(np.sum(np.linspace(0, 8000, len(power)) * power) / power.sum())
    assert spectra["BGM"] < 1500 < spectra["Applause"]
