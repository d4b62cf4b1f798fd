"""Intervals are paired, verdicts follow them, and what is certain has a point for an interval."""

from __future__ import annotations

import numpy as np
import pytest

from stages.core.statistics import Metric, drift, interval, speedup, verdict

SETTINGS = {"resamples": 500, "confidence": 0.95, "seed": 0}
SCORE, ERRORS = Metric(higher_is_better=True), Metric(higher_is_better=False)


def counts(*pairs: tuple[float, float]) -> list[dict[str, tuple[float, float]]]:
    return [{"m": pair} for pair in pairs]


def test_a_ratio_is_pooled_over_recordings_not_averaged():
    measured = drift(SCORE, "m", counts((1, 1), (9, 9)), counts((0, 1), (9, 9)), **SETTINGS)
    assert measured["baseline"] == 1
    assert measured["value"] == pytest.approx(0.9)
    assert measured["drift"] == pytest.approx(-0.1)
    low, high = measured["ci"]
    assert low <= measured["drift"] <= high <= 0


def test_the_largest_is_pooled_as_a_maximum():
    worst = Metric(higher_is_better=False, pooling="max")
    assert drift(worst, "m", counts((0, 1), (0, 1)), counts((0.2, 1), (0.7, 1)), **SETTINGS)["value"] == 0.7


def test_identical_outcomes_drift_by_exactly_nothing():
    same = counts((1, 2), (5, 9), (3, 4))
    assert drift(SCORE, "m", same, same, **SETTINGS)["ci"] == [0, 0]


def test_pairing_makes_the_interval_small():
    rng = np.random.default_rng(0)
    hard = rng.integers(0, 100, 40)
    baseline = counts(*((int(h), 100) for h in hard))
    worse = counts(*((int(h) + 1, 100) for h in hard))
    low, high = drift(ERRORS, "m", baseline, worse, **SETTINGS)["ci"]
    assert high - low < 1e-9
    assert low == pytest.approx(0.01)


def test_nothing_to_find_is_a_perfect_score_and_no_error():
    empty = counts((0, 0), (0, 0))
    assert drift(SCORE, "m", empty, empty, **SETTINGS)["value"] == 1
    assert drift(ERRORS, "m", empty, empty, **SETTINGS)["value"] == 0


def test_the_interval_covers_a_mean_as_often_as_it_says():
    rng = np.random.default_rng(3)
    intervals = [interval([rng.normal(size=40)], lambda a: a.mean(axis=-1), **SETTINGS) for _ in range(200)]
    covered = sum(low <= 0 <= high for low, high in intervals)
    assert 0.88 <= covered / 200 <= 0.99


def test_one_recording_has_a_point():
    assert interval([np.array([3.0])], lambda a: a.mean(axis=-1), **SETTINGS) == (3, 3)


@pytest.mark.parametrize(
    ("higher", "ci", "limit", "wanted"),
    [
        pytest.param(True, (-0.004, -0.001), 0.005, "pass", id="score-loses-little"),
        pytest.param(True, (-0.004, 0.010), 0.005, "pass", id="score-gains"),
        pytest.param(True, (-0.006, -0.001), 0.005, "inconclusive", id="score-straddles"),
        pytest.param(True, (-0.009, -0.006), 0.005, "fail", id="score-loses-much"),
        pytest.param(False, (0.001, 0.004), 0.005, "pass", id="error-grows-little"),
        pytest.param(False, (0.001, 0.006), 0.005, "inconclusive", id="error-straddles"),
        pytest.param(False, (0.006, 0.009), 0.005, "fail", id="error-grows-much"),
        pytest.param(True, (0.0, 0.0), 0.0, "pass", id="nothing-lost-nothing-allowed"),
    ],
)
def test_a_verdict_needs_the_whole_interval(higher, ci: tuple[float, float], limit: float, wanted: str):
    assert verdict({"ci": ci, "higher_is_better": higher}, limit) == wanted


def test_speedup_is_the_median_of_paired_ratios():
    rng = np.random.default_rng(1)
    machine = rng.uniform(1, 5, 200)  # what else runs slows both alike
    ratio, (low, high) = speedup(2 * machine, machine, **SETTINGS)
    assert ratio == low == high == 2
