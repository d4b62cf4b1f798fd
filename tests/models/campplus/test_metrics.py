"""The equal error rate is that of all pairs of recordings, and its interval that of drawing speakers anew."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from stages.core.statistics import Counts, interval
from stages.corpora.manifest import Recording
from stages.models import campplus
from stages.models.campplus.metrics import Outcome

TAKES = 4


def recording(speaker: int, take: int) -> Recording:
    return Recording(folder=Path(), id=f"{speaker}-{take}", text=f"sentence {take % 2}", speaker=f"{speaker}")


def population(speakers: int, seed: int, spread: float = 0.8) -> tuple[list[Recording], list[Outcome]]:
    """Voices with embeddings around their own centre."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((speakers, 8))
    recordings = [recording(speaker, take) for speaker in range(speakers) for take in range(TAKES)]
    vectors = np.repeat(centres, TAKES, axis=0) + spread * rng.standard_normal((len(recordings), 8))
    return recordings, [Outcome(vector.astype(np.float32)) for vector in vectors]


def pooled(counts: list[Counts], name: str) -> float:
    numerators, denominators = (np.array([of[name][i] for of in counts]) for i in (0, 1))
    return float(campplus.METRICS[name].pool(numerators, denominators))


def rate(recordings: list[Recording], outcomes: list[Outcome], kind: str = "eer") -> float:
    return pooled(campplus.measure(Path(), recordings, outcomes, outcomes), kind)


def compute_by_hand(recordings: list[Recording], outcomes: list[Outcome], texts: set[bool]) -> float:
    """Try every score as a threshold, and return the error where misses and false alarms differ least."""
    same: list[float] = []
    other: list[float] = []
    for i, one in enumerate(recordings):
        for j, two in enumerate(recordings[:i]):
            if (one.text == two.text) in texts:
                a, b = outcomes[i].embedding.astype(float), outcomes[j].embedding.astype(float)
                score = float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
                (same if one.speaker == two.speaker else other).append(score)
    errors = [(np.mean(np.array(same) < t), np.mean(np.array(other) >= t)) for t in same]
    return float(np.mean(min(errors, key=lambda pair: abs(pair[0] - pair[1]))))


@pytest.mark.parametrize(
    ("kind", "texts"),
    [("eer", {True, False}), ("eer_same_sentence", {True}), ("eer_other_sentence", {False})],
)
def test_the_rate_is_that_of_all_pairs_that_count(kind: str, texts: set[bool]):
    recordings, outcomes = population(12, seed=0)
    assert rate(recordings, outcomes, kind) == pytest.approx(compute_by_hand(recordings, outcomes, texts), abs=1e-9)
    assert 0.02 < rate(recordings, outcomes, kind) < 0.3


def test_voices_that_are_apart_have_no_errors_and_noise_has_half():
    assert rate(*population(10, seed=1, spread=1e-3)) == pytest.approx(0, abs=1e-9)
    assert rate(*population(30, seed=1, spread=1e3)) == pytest.approx(0.5, abs=0.05)


def test_resampled_speakers_vary_as_other_speakers_do():
    """The deviation of the cluster bootstrap over one population, against that of the rate over many of them."""
    many = [rate(*population(30, seed)) for seed in range(120)]
    widths = []
    for seed in range(5):
        recordings, outcomes = population(30, seed)
        counts = campplus.measure(Path(), recordings, outcomes, outcomes)
        columns = [_sum_by_speaker(counts, i) for i in (0, 1)]
        pool = partial(campplus.METRICS["eer"].pool, *columns)
        low, high = interval(pool, len(columns[0]), resamples=400, confidence=0.95, seed=0)
        widths.append((high - low) / 3.92)
    assert 0.75 < float(np.mean(widths)) / float(np.std(many)) < 1.4


def _sum_by_speaker(counts: list[Counts], number: int) -> NDArray[np.float64]:
    return np.array([of["eer"][number] for of in counts]).reshape(-1, TAKES).sum(axis=1)


def test_an_embedding_that_moved_is_told_by_mean_and_worst():
    recordings, outcomes = population(5, seed=2)
    moved = [Outcome(-outcomes[0].embedding), *outcomes[1:]]
    counts = campplus.measure(Path(), recordings, outcomes, moved)
    assert pooled(counts, "embedding_cosine") == pytest.approx(1 - 2 / len(recordings))
    assert pooled(counts, "embedding_max_distance") == pytest.approx(2)


@pytest.mark.parametrize("speakers", [["a", "b"], ["a", "a"], ["", ""]], ids=["two", "one", "unknown"])
def test_without_trials_of_one_speaker_and_of_two_there_is_nothing_to_measure(speakers: list[str]):
    recordings = [Recording(folder=Path(), id=f"{n}", text="t", speaker=s) for n, s in enumerate(speakers)]
    outcomes = [Outcome(np.array([1, n], np.float32)) for n in range(2)]
    assert np.isnan(rate(recordings, outcomes))
