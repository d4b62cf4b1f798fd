"""Every voice speaks the same sentences twice in other conditions, and no voice or sentence is in two splits."""

from __future__ import annotations

from collections import defaultdict
from itertools import combinations
from pathlib import Path

from stages.core.params.section import Split
from stages.corpora import espeak, manifest, speaker_trials

ITEMS: dict[Split, int] = {"calibration": 1, "tuning": 1, "evaluation": 12}


def test_two_voices_speak_the_same_sentences_twice_in_two_conditions(tmp_path: Path):
    speaker_trials.make(1, ITEMS, tmp_path)
    manifest.check(tmp_path)
    by_speaker = defaultdict(list)
    for recording in manifest.read(tmp_path, "evaluation"):
        by_speaker[recording.speaker].append(recording)
    assert len(by_speaker) == 2
    for takes in by_speaker.values():
        assert [take.text for take in takes] == [
            text for _, text in speaker_trials.SENTENCES["evaluation"] for _ in "ab"
        ]
        assert all(one.condition != other.condition for one, other in zip(takes[::2], takes[1::2], strict=True))
        assert all(1 < take.seconds < 8 for take in takes)


def test_the_same_seed_gives_the_same_bytes_and_another_other_voices(tmp_path: Path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        speaker_trials.make(seed, dict.fromkeys(ITEMS, 1), tmp_path / name)
    one, same, other = ([r.sha256 for r in manifest.read(tmp_path / name, "evaluation")] for name in "abc")
    assert one == same != other


def test_no_voice_or_sentence_is_in_two_splits_or_in_training():
    variants = [*speaker_trials.VARIANTS.values(), speaker_trials.TRAINING_VARIANTS]
    for cast, others in combinations(variants, 2):
        assert not set(cast) & set(others)
    for texts, other_texts in combinations(speaker_trials.SENTENCES.values(), 2):
        assert not set(texts) & set(other_texts)
    assert {name for group in variants for name in group} <= set(espeak.variants())


def test_more_recordings_leave_the_first_as_they_are(tmp_path: Path):
    for count in (1, 2):
        speaker_trials.make(1, dict.fromkeys(ITEMS, count), tmp_path / str(count))
    few, more = (manifest.read(tmp_path / count, "evaluation") for count in ("1", "2"))
    assert [r.sha256 for r in few] == [r.sha256 for r in more[:1]]
