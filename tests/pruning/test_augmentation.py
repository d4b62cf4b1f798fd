"""Variations and mixtures of calibration audio are audio, new each time, and the same with the same seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stages.corpora import manifest
from stages.corpora.manifest import SAMPLE_RATE
from stages.pruning import augmentation
from stages.pruning.augmentation import Voice


@pytest.fixture
def voices() -> list[Voice]:
    """Three voices, each with a tone of its own that it says for 0.3 and 0.6 s."""
    seconds = (0.3, 0.6)
    hertz = (200, 500, 1100)
    return [[np.sin(2 * np.pi * f * np.arange(int(s * SAMPLE_RATE)) / SAMPLE_RATE) for s in seconds] for f in hertz]


def test_variations_are_audio_and_repeat():
    rng = np.random.default_rng(0)
    recordings = [rng.uniform(-0.1, 0.1, 8000).astype(np.float32), np.zeros(4000, np.float32)]
    first, again = augmentation.vary(recordings, 2, seed=3), augmentation.vary(recordings, 2, seed=3)
    assert [len(a) for a in first] == [len(a) for a in again]
    assert all(a.dtype == np.float32 and np.isfinite(a).all() and np.abs(a).max() <= 1 for a in first)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


def test_mixtures_are_audio_new_each_time_and_repeat(voices: list[Voice]):
    first, again = np.random.default_rng(3), np.random.default_rng(3)
    made = [augmentation.mix(voices, 40_000, first) for _ in range(20)]
    assert all(m.dtype == np.float32 and m.shape == (40_000,) and 0 < np.abs(m).max() <= 1 for m in made)
    assert all(np.array_equal(m, augmentation.mix(voices, 40_000, again)) for m in made)
    assert len({m.tobytes() for m in made}) == 20


def test_mixtures_have_speech_over_noise_of_many_levels(voices: list[Voice]):
    rng = np.random.default_rng(0)
    spread = []
    for _ in range(40):
        frames = augmentation.mix(voices, 6 * SAMPLE_RATE, rng).reshape(-1, SAMPLE_RATE // 50)
        energy = 10 * np.log10(np.mean(frames**2, axis=1) + 1e-9)
        spread.append(np.percentile(energy, 95) - np.percentile(energy, 5))
    assert min(spread) < 8  # dB: hardly to be heard
    assert max(spread) > 25


def test_utterances_are_cut_at_the_segments(tiny_corpus: Path):
    recordings = manifest.read(tiny_corpus, "calibration")
    voices = augmentation.cut_utterances(recordings)
    assert [[len(utterance) for utterance in voice] for voice in voices] == [[SAMPLE_RATE]] * 4
    np.testing.assert_array_equal(voices[0][0], recordings[0].samples()[SAMPLE_RATE : 2 * SAMPLE_RATE])


def test_recordings_without_segments_are_utterances(tiny_corpus: Path):
    recordings = [r.model_copy(update={"segments": []}) for r in manifest.read(tiny_corpus, "calibration")]
    assert [len(voice[0]) for voice in augmentation.cut_utterances(recordings)] == [3 * SAMPLE_RATE] * 4
