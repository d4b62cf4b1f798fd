"""Intervals are paired and hold, verdicts follow them, and what was not seen proves no more than it can."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks import intervals
from stages.core import speedups, statistics
from stages.core.speedups import speedup
from stages.core.statistics import Groups, Metric, describe_drift, estimate_clusters, interval, verdict

SETTINGS: dict[str, Any] = {"resamples": 500, "confidence": 0.95, "seed": 0}
SCORE, ERRORS = Metric(higher_is_better=True), Metric(higher_is_better=False)
LARGEST = Metric(higher_is_better=False, pooling="max")
Pairs = Sequence[tuple[float, float]]


def drift(metric: Metric, baseline: Pairs, value: Pairs, groups: Groups | None = None) -> dict[str, Any]:
    apart = Groups([str(i) for i in range(len(value))], [""] * len(value), [""] * len(value))
    before, after = ([{"m": pair} for pair in pairs] for pairs in (baseline, value))
    return statistics.drift(metric, "m", before, after, groups or apart, **SETTINGS)


def mean(sample: NDArray[np.float64], drawn: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(drawn @ sample / len(sample))


def test_a_ratio_is_pooled_over_recordings_not_averaged():
    measured = drift(SCORE, [(1, 1), (9, 9)], [(0, 1), (9, 9)])
    assert measured["baseline"] == 1
    assert measured["value"] == pytest.approx(0.9)
    assert measured["drift"] == pytest.approx(-0.1)
    low, high = measured["ci"]
    assert low <= measured["drift"] <= high <= 0


def test_the_largest_is_pooled_as_a_maximum():
    assert drift(LARGEST, [(0, 1), (0, 1)], [(0.2, 1), (0.7, 1)])["value"] == 0.7


def test_no_loss_seen_is_not_no_loss():
    """Of n recordings without one, a share of up to 1 - 0.025 ** (1 / n) may be lost: Clopper & Pearson."""
    measured = drift(ERRORS, [(0, 12)] * 96, [(0, 12)] * 96)
    assert measured["drift"] == 0
    assert measured["ci"][0] == 0
    assert measured["ci"][1] == pytest.approx(1 - 0.025 ** (1 / 96))
    assert measured["resolves"] == measured["ci"][1]


def test_what_the_next_may_lose_is_in_the_metric_s_unit():
    """Of 50 recordings no token moved: one of thirteen may, by a second, which is no third of a millisecond."""
    shifts = Metric(higher_is_better=False, most=1000)
    none = [(0, 20)] * 50
    assert drift(shifts, none, none)["ci"][1] == pytest.approx(1000 * drift(ERRORS, none, none)["ci"][1])
    assert verdict(drift(shifts, none, none), 20) == "inconclusive"


def test_a_limit_that_the_data_cannot_resolve_says_how_many_it_takes():
    measured = drift(ERRORS, [(0, 12)] * 96, [(0, 12)] * 96)
    assert verdict(measured, 0.001) == "inconclusive"
    needed = estimate_clusters(measured, 0.001)
    assert needed is not None
    assert needed > 3000
    same = [(0, 12)] * needed
    assert verdict(drift(ERRORS, same, same), 0.001) == "pass"


def test_a_few_clusters_are_not_told_that_ten_will_do():
    few, one = ([(0, 12)] * count for count in (3, 1))
    needed = estimate_clusters(drift(ERRORS, few, few), 0.001)
    assert needed is not None
    assert needed > 1000
    assert estimate_clusters(drift(ERRORS, one, one), 0.001) == 10  # at the least: one tells nothing
    assert estimate_clusters(statistics.certain(0, 3), 0.001) == 10


def test_pairing_makes_the_interval_small():
    hard = np.random.default_rng(0).integers(0, 100, 40)
    low, high = drift(ERRORS, [(int(h), 100) for h in hard], [(int(h) + 1, 100) for h in hard])["ci"]
    assert low == pytest.approx(0.01)
    assert high == pytest.approx(0.01)


@pytest.mark.parametrize("metric", [SCORE, ERRORS, LARGEST], ids=["score", "errors", "largest"])
def test_nothing_to_measure_has_no_value_and_does_not_pass(metric: Metric):
    measured = drift(metric, [(0, 0)] * 20, [(0, 0)] * 20)
    assert (measured["value"], measured["drift"], measured["ci"]) == (None, None, None)
    assert verdict(measured, 1.0) == "inconclusive"


def test_errors_over_nothing_count_whoever_speaks():
    """Words in a recording in which nothing is said, and errors where the baseline makes none."""
    before, after = [(1, 10)] * 20 + [(0, 0)] * 20, [(1, 10)] * 20 + [(5, 0)] * 20
    speakers = [str(i // 2) for i in range(40)]
    for groups in (None, Groups(speakers, speakers, speakers)):
        measured = drift(ERRORS, before, after, groups)
        assert measured["drift"] == pytest.approx(0.5)
        assert verdict(measured, 0.1) == "fail"


def test_a_baseline_of_nothing_has_no_drift_in_words_and_is_no_worst_condition():
    """A detector that finds speech only in noise, where the baseline finds none."""
    before, after = [(0, 0)] * 20, [(0, 5)] * 20
    measured = drift(SCORE, before, after)
    assert (measured["value"], measured["drift"], measured["ci"]) == (0, None, None)
    assert describe_drift(measured) == "nothing to measure"
    conditions = ["noise"] * 20 + ["office"] * 20
    known = drift(SCORE, [*before, *[(9, 9)] * 20], [*after, *[(9, 9)] * 20], Groups(conditions, [""] * 40, conditions))
    assert known["worst"] == {"condition": {"name": "office", "loss": 0}}


@pytest.mark.parametrize("count", [1, 9])
def test_under_ten_clusters_nothing_passes_and_nothing_fails(count: int):
    same, worse = [(0, 100)] * count, [(90, 100)] * count
    assert verdict(drift(ERRORS, same, same), 1.0) == "inconclusive"
    assert verdict(drift(ERRORS, same, worse), 0.01) == "inconclusive"


def test_recordings_of_one_speaker_count_as_one():
    """All errors are one voice's: apart, forty recordings seem to tell more than four speakers can."""
    before, after = [(0, 10)] * 400, [(1, 10)] * 100 + [(0, 10)] * 300
    speakers = [str(i // 20) for i in range(400)]
    apart, together = drift(ERRORS, before, after), drift(ERRORS, before, after, Groups(speakers, speakers, speakers))
    assert together["clusters"] == 20
    assert together["ci"][1] - together["ci"][0] > 2 * (apart["ci"][1] - apart["ci"][0])


def test_the_worst_speaker_and_condition_are_named():
    before, after = [(0, 10)] * 40, [(1, 10)] * 20 + [(0, 10)] * 20
    conditions = ["noise"] * 20 + ["clean"] * 20
    speakers = [str(i) for i in range(40)]
    worst = drift(ERRORS, before, after, Groups(speakers, speakers, conditions))["worst"]
    assert worst == {"condition": {"name": "noise", "loss": pytest.approx(0.1)}}  # a speaker has one recording here


@pytest.mark.parametrize("count", intervals.SIZES[:3])
@pytest.mark.parametrize("kind", intervals.KINDS)
def test_the_truth_is_seldom_above_the_interval(kind: str, count: int):
    """At most 3.5 % at a nominal 2.5 %, with what 200 simulations may be off by chance."""
    above, *_ = intervals.missed(*intervals.KINDS[kind], count, runs=200)
    assert above <= 0.035 + 2 * math.sqrt(0.035 / 200)


def test_the_interval_covers_a_mean_as_often_as_it_says():
    rng = np.random.default_rng(3)
    found = [interval(partial(mean, rng.normal(size=40)), 40, **SETTINGS) for _ in range(200)]
    covered = sum(low <= 0 <= high for low, high in found)
    assert 0.9 <= covered / 200 <= 0.99


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
    assert verdict({"ci": ci, "higher_is_better": higher, "clusters": 10}, limit) == wanted


def test_speedup_is_of_pairs_and_their_medians():
    rng = np.random.default_rng(1)
    machine = rng.uniform(1, 5, (5, 41))  # what else runs slows both alike
    interrupted = np.where(np.arange(41) < 20, 30, 1)  # fewer than half of the runs
    found = speedup([(2 * slow, interrupted * slow) for slow in machine], 0.95)
    assert (found["speedup"], *found["ci"]) == pytest.approx((2, 2, 2))


@pytest.mark.parametrize("disturbed", [0, 0.15], ids=["quiet", "busy"])
def test_a_speedup_measured_again_lies_in_the_interval(disturbed: float):
    """Blocks vary more than their pairs tell, some of them much; two runs lie in each other's intervals."""
    rng = np.random.default_rng(2)

    def measure() -> dict[str, Any]:
        of_block = rng.normal(0, 0.03, (5, 1)) + (rng.random((5, 1)) < disturbed) * rng.normal(0, 0.4, (5, 1))
        blocks = of_block + rng.normal(0, 0.02, (5, 60))
        return speedup([(3 * np.exp(ratios), np.ones(60)) for ratios in blocks], 0.95)

    runs = [measure() for _ in range(600)]

    def holds(one: dict[str, Any], other: dict[str, Any]) -> bool:
        return bool(one["ci"][0] <= other["speedup"] <= one["ci"][1])

    mutual = [holds(one, other) and holds(other, one) for one, other in itertools.pairwise(runs)]
    assert 0.9 < np.mean(mutual) < 0.97


def test_a_mean_speedup_is_no_surer_than_those_it_is_of():
    mean = speedups.mean_speedup([{"speedup": 2.0, "ci": [1.0, 4.0]}, {"speedup": 8.0, "ci": [4.0, 16.0]}])
    assert mean == {"speedup": pytest.approx(4), "ci": pytest.approx([2, 8])}


@pytest.mark.parametrize(
    ("higher", "wanted"), [(True, (0.3, 0.2, 0.4)), (False, (-0.3, -0.4, -0.2))], ids=["score", "error"]
)
def test_a_loss_is_worse_when_larger(higher, wanted: tuple[float, ...]):
    measured = {"drift": -0.3, "ci": [-0.4, -0.2], "higher_is_better": higher}
    assert (statistics.loss(measured), *statistics.loss_interval(measured)) == wanted
