"""The grammar's text repeats with its seed, shares no sentence between splits, and is neither trivial nor broken."""

# ruff: noqa: RUF001  the marks are Chinese

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from stages.core.params.section import Split
from stages.corpora import manifest, punctuated_text
from stages.corpora.punctuated_text import OWNERS, paragraphs

ITEMS: dict[Split, int] = {"calibration": 20, "tuning": 20, "evaluation": 60}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("text")
    punctuated_text.make(7, ITEMS, place)
    return place


def sentences(texts: list[str]) -> set[str]:
    return {sentence for text in texts for sentence in re.findall(r"[^。？]+[。？]", text)}


def test_the_manifests_are_of_text_only(folder: Path):
    manifest.check(folder)
    for split, count in ITEMS.items():
        lines = manifest.read(folder, split)
        assert len(lines) == count
        assert all(line.text and line.wav is None for line in lines)


def test_same_seed_same_bytes(folder: Path, tmp_path: Path):
    for seed in (7, 8):
        (tmp_path / str(seed)).mkdir()
        punctuated_text.make(seed, ITEMS, tmp_path / str(seed))
    assert (tmp_path / "7" / "evaluation.jsonl").read_bytes() == (folder / "evaluation.jsonl").read_bytes()
    assert (tmp_path / "8" / "evaluation.jsonl").read_bytes() != (folder / "evaluation.jsonl").read_bytes()


def test_no_sentence_is_in_two_splits_whatever_the_seeds():
    said = [sentences(paragraphs(owner, seed, 60)) for seed, owner in enumerate(dict.fromkeys(OWNERS))]
    assert sum(map(len, said)) == len(set.union(*said))


def test_paragraphs_are_whole_sentences_with_every_mark_and_some_are_long():
    texts = paragraphs("evaluation", 1, 120)
    assert all(2 <= len(re.findall("[。？]", text)) <= 6 for text in texts)
    assert not any(re.search("[，。？、]{2}|^[，。？、]|[{}]", text) for text in texts)
    assert all(text[-1] in "。？" for text in texts)
    assert {"，", "。", "？", "、"} < set("".join(texts))
    assert max(len(s) for s in sentences(texts)) > 200  # FunASR then cuts at a comma


def test_the_vocabulary_is_of_a_few_hundred_characters():
    counts = Counter("".join(paragraphs("training", 1, 600)))
    assert 250 < len(counts) < 500


def test_lists_do_not_repeat_themselves():
    for text in paragraphs("training", 2, 100):
        for listed in re.findall(r"买(\w+)、(\w+)和", text):
            assert len(set(listed)) == len(listed)
