"""Splits share no speaker, and nothing but the seed and the ids decides them."""

from __future__ import annotations

from pathlib import Path

import pytest

from stages.core.errors import UserError
from stages.core.params.section import Split
from stages.corpora.imports.split import assign_speakers
from stages.corpora.imports.utterances import Utterance

ITEMS: dict[Split, int] = {"calibration": 10, "tuning": 10, "evaluation": 40}


def said(**counts: int) -> list[Utterance]:
    return [Utterance(f"{who}-{n}", who, "text", Path("a")) for who, count in counts.items() for n in range(count)]


def test_no_speaker_is_in_two_and_evaluation_has_most():
    parts = assign_speakers(said(**{f"s{n}": 5 for n in range(24)}), ITEMS, seed=0)
    speakers = {part: {each.speaker for each in utterances} for part, utterances in parts.items()}
    assert {part: len(of) for part, of in speakers.items()} == {"calibration": 4, "tuning": 4, "evaluation": 16}
    assert len(set.union(*speakers.values())) == 24


def test_the_first_of_a_split_are_of_as_many_speakers_as_can_be():
    parts = assign_speakers(said(**{f"s{n}": 5 for n in range(24)}), ITEMS, seed=0)
    assert len({each.speaker for each in parts["evaluation"][:16]}) == 16


def test_the_order_of_the_files_does_not_matter_and_the_seed_does():
    utterances = said(**{f"s{n}": 5 for n in range(24)})
    assert assign_speakers(utterances, ITEMS, seed=0) == assign_speakers(utterances[::-1], ITEMS, seed=0)
    assert assign_speakers(utterances, ITEMS, seed=0) != assign_speakers(utterances, ITEMS, seed=1)


def test_three_speakers_are_one_each():
    parts = assign_speakers(said(a=100, b=1, c=1), ITEMS, seed=0)
    assert [len({each.speaker for each in utterances}) for utterances in parts.values()] == [1, 1, 1]


@pytest.mark.parametrize(
    ("counts", "found"), [({"a": 9}, "found 1 speaker with"), ({"a": 9, "b": 9}, "found 2 speakers")]
)
def test_fewer_are_refused_with_their_count(counts: dict[str, int], found: str):
    with pytest.raises(
        UserError, match=rf"{found}.* wanted at least 3: calibration, tuning, evaluation must not share"
    ):
        assign_speakers(said(**counts), ITEMS, seed=0)
