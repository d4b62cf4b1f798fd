"""Conversations: whole data sets of speech that the known segments and text describe, the same bytes each time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stages.core import params
from stages.core.params.origins import SyntheticDataset
from stages.core.params.section import Split
from stages.core.statistics import LEAST
from stages.corpora import conversations, manifest, spoken_commands
from stages.corpora.conversations import END_OF_SENTENCE
from stages.corpora.manifest import SAMPLE_RATE
from tests.workspace import ROOT

ITEMS: dict[Split, int] = {"calibration": 1, "tuning": 1, "evaluation": 1, "final": 1}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("conversations")
    conversations.make(7, ITEMS, folder)
    return folder


def test_every_split_is_a_data_set_of_recordings_with_several_sentences(made):
    manifest.check(made)
    for split in ITEMS:
        (recording,) = manifest.read(made, split)
        assert 8 <= recording.seconds < 30


def test_a_sentence_for_each_segment_and_each_of_its_split(made):
    for split in ITEMS:
        (recording,) = manifest.read(made, split)
        sentences = recording.text.removesuffix(END_OF_SENTENCE).split(END_OF_SENTENCE)
        assert len(sentences) == len(recording.segments)
        assert {spoken_commands.part_of(text) for text in sentences} == {split}


def test_between_turns_is_a_pause_that_ends_a_segment(made):
    (recording,) = manifest.read(made, "tuning")
    edges = np.array(recording.segments)
    pauses = edges[1:, 0] - edges[:-1, 1]
    assert pauses.min() >= 0.3
    assert (pauses > 0.8).sum() >= 1
    samples = recording.samples()
    inside = np.zeros(len(samples), bool)
    for start, end in recording.segments:
        inside[int(start * SAMPLE_RATE) : int(end * SAMPLE_RATE)] = True
    assert np.mean(samples[inside] ** 2) > 5 * np.mean(samples[~inside] ** 2)


def test_same_seed_same_bytes(made, tmp_path):
    conversations.make(7, {"calibration": 1}, tmp_path)
    assert (tmp_path / "calibration.jsonl").read_bytes() == (made / "calibration.jsonl").read_bytes()


def test_the_default_build_judges_each_condition_of_its_conversations():
    """A condition of fewer recordings than LEAST is not among the worst: nothing would be judged by it."""
    dataset = params.load(ROOT / "params.yaml").datasets["conversations"]
    assert isinstance(dataset, SyntheticDataset)
    assert dataset.items["evaluation"] // conversations.KEPT >= LEAST
