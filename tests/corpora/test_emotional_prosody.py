"""The manners differ in what their recipes say, and no speaker or sentence is in two splits."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np

from stages.core.params.section import Split
from stages.corpora import emotional_prosody, espeak, manifest
from stages.corpora.manifest import SAMPLE_RATE

ITEMS: dict[Split, int] = {"calibration": 9, "tuning": 2, "evaluation": 2}


def test_a_split_has_each_label_equally_often_and_the_same_seed_gives_the_same_bytes(tmp_path: Path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        emotional_prosody.make(seed, ITEMS if name == "a" else dict.fromkeys(ITEMS, 2), tmp_path / name)
    manifest.check(tmp_path / "a")
    recordings = manifest.read(tmp_path / "a", "calibration")
    assert sorted(r.label for r in recordings) == sorted(emotional_prosody.LABELS)
    assert all(r.text and 0.5 < r.seconds < 5 for r in recordings)
    one, same, other = ([r.sha256 for r in manifest.read(tmp_path / name, "evaluation")] for name in "abc")
    assert one == same != other


def test_no_speaker_or_ending_is_in_two_splits_or_in_training():
    speakers = [*emotional_prosody.SPEAKERS.values(), emotional_prosody.TRAINING_SPEAKERS]
    endings = [*emotional_prosody.ENDINGS.values(), emotional_prosody.TRAINING_ENDINGS]
    for a, b in combinations(speakers, 2):
        assert not set(a) & set(b)
    for one, other in combinations(endings, 2):
        assert not any(set(one[voice]) & set(other[voice]) for voice in ("cmn", "en-us"))
    assert {name for group in speakers for name in group} <= set(espeak.variants())


def spoken(label: str) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    speakers = emotional_prosody.TRAINING_SPEAKERS[:6]
    return [emotional_prosody.utterance(label, s, emotional_prosody.TRAINING_ENDINGS, rng)[1] for s in speakers]


def brightness(utterances: list[np.ndarray]) -> float:
    """Share of the power above 1.5 kHz."""
    spectra = [np.abs(np.fft.rfft(samples, SAMPLE_RATE * 4)) ** 2 for samples in utterances]
    return float(np.mean([s[6000:].sum() / s.sum() for s in spectra]))


def test_sad_speech_is_slow_and_dull_beside_angry_speech():
    sad, angry = spoken("sad"), spoken("angry")
    assert np.mean([len(samples) for samples in sad]) > 1.2 * np.mean([len(samples) for samples in angry])
    assert brightness(sad) < brightness(angry)


def test_unknown_speech_is_under_noise():
    def quietest(utterances: list[np.ndarray]) -> float:
        """Power of the quietest twentieth of a second, as a share of the mean."""
        frames = [samples[: len(samples) // 800 * 800].reshape(-1, 800) for samples in utterances]
        return float(np.median([(f**2).mean(axis=1).min() / (f**2).mean() for f in frames]))

    assert quietest(spoken("unknown")) > 10 * quietest(spoken("neutral"))
