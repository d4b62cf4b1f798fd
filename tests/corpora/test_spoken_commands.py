"""Spoken commands: no split shares a sentence or a speaker with another, and the same seed gives the same bytes."""

from __future__ import annotations

import json
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest

from stages.core.params.section import Split
from stages.corpora import manifest, spoken_commands
from stages.corpora.espeak import variants
from stages.corpora.spoken_commands import COMMANDS, SPEAKERS

ITEMS: dict[Split, int] = {"calibration": 2, "tuning": 1, "evaluation": 3}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spoken")
    spoken_commands.make(7, ITEMS, folder)
    return folder


def test_every_split_is_a_data_set(made):
    manifest.check(made)
    assert {split: len(manifest.read(made, split)) for split in ITEMS} == ITEMS


def test_text_has_only_known_characters(made):
    texts = [recording.text for split in ITEMS for recording in manifest.read(made, split)]
    assert set("".join(texts)) <= set(spoken_commands.characters())
    assert all(texts)


def test_segments_are_where_the_speech_is(made):
    for recording in manifest.read(made, "evaluation"):
        samples = recording.samples()
        inside = np.zeros(len(samples), bool)
        for start, end in recording.segments:
            inside[int(start * manifest.SAMPLE_RATE) : int(end * manifest.SAMPLE_RATE)] = True
        assert np.mean(samples[inside] ** 2) > 5 * np.mean(samples[~inside] ** 2)


def test_same_seed_same_bytes(made, tmp_path):
    spoken_commands.make(7, {"evaluation": 3}, tmp_path)  # alone, and after other speech
    assert (tmp_path / "evaluation.jsonl").read_bytes() == (made / "evaluation.jsonl").read_bytes()


def test_another_seed_says_something_else(made, tmp_path):
    spoken_commands.make(8, {"evaluation": 3}, tmp_path)
    digests = [{r.sha256 for r in manifest.read(folder, "evaluation")} for folder in (made, tmp_path)]
    assert not digests[0] & digests[1]


def test_speakers_exist_and_are_in_one_part():
    for one, other in combinations(SPEAKERS.values(), 2):
        assert not set(one) & set(other)
    assert {name for names in SPEAKERS.values() for name in names} <= set(variants())


def test_parts_draw_different_sentences():
    rng = np.random.default_rng(0)
    drawn = {part: {spoken_commands.sentence(part, rng) for _ in range(150)} for part in SPEAKERS}
    for one, other in combinations(drawn.values(), 2):
        assert not one & other


def test_training_has_every_character():
    sentences = ("".join(words) for command in COMMANDS for words in product(*command))
    training = {c for text in sentences if spoken_commands.part_of(text) == "training" for c in text}
    assert training | set(spoken_commands.DIGITS) == set(spoken_commands.characters())


@pytest.mark.parametrize("model", ["paraformer", "paraformer_streaming"])
def test_miniatures_have_a_token_for_every_character(model):
    tokens = json.loads((Path(__file__).parents[2] / "zoo" / model / "tokens.json").read_text(encoding="utf-8"))
    assert tokens == ["<blank>", "<s>", "</s>", *spoken_commands.characters(), "<unk>"]
