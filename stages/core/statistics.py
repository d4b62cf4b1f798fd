"""Paired intervals: how far a candidate is from the baseline, and how sure that is."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Counts = Mapping[str, tuple[float, float]]
"""One recording: metric to (numerator, denominator)."""

LEAST = 10  # clusters, or clusters with a loss: fewer do not tell how losses are distributed


@dataclass(frozen=True)
class Groups:
    """Which recordings belong together, a name for each recording.

    clusters: those that are resampled together: who speaks or, where nobody knows, the recording itself. speakers and
    conditions: what is known of them, else "".
    """

    clusters: Sequence[str]
    speakers: Sequence[str]
    conditions: Sequence[str]


@dataclass(frozen=True)
class Metric:
    """How a metric is pooled over recordings and which way is better.

    pooling: `ratio` is the sum of numerators over the sum of denominators (so an F1 is over all
    events, not a mean of F1s); `max` is the largest numerator. most: what a recording may lose, in the metric's unit.
    """

    higher_is_better: bool
    pooling: Literal["ratio", "max"] = "ratio"
    most: float = 1.0

    def pool(self, numerator: Floats, denominator: Floats, drawn: Floats | None = None) -> Floats:
        """Pool over recordings, (recordings,) each; NaN where there was nothing to measure: 0/0.

        drawn: how often each recording is in each resample, (resamples, recordings); then the result is (resamples,).
        """
        drawn = np.ones(len(numerator)) if drawn is None else drawn
        top, bottom = (drawn @ np.column_stack([numerator, denominator])).T
        if self.pooling == "max" and len(numerator):
            top, bottom = np.where(drawn > 0, numerator, -np.inf).max(axis=-1), np.where(bottom == 0, 0.0, 1.0)
        return np.where(bottom == 0, np.nan, top / np.where(bottom == 0, 1, bottom))


@functools.lru_cache(maxsize=16)  # most metrics of a build are of the same recordings
def draw(count: int, resamples: int, seed: int) -> Floats:
    """Draw `count` observations with replacement, and return how often each is in each resample: (resamples, count)."""
    drawn = np.random.default_rng(seed).integers(count, size=(resamples, count))
    drawn += count * np.arange(resamples)[:, np.newaxis]
    return np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape).astype(float)


def interval(
    statistic: Callable[[Floats], Floats], count: int, *, resamples: int, confidence: float, seed: int
) -> tuple[float, float]:
    """Return the expanded percentile bootstrap interval of a statistic of paired observations.

    The percentiles are those at which the interval of a mean is as wide as Student's: Hesterberg, "What teachers
    should know about the bootstrap", 2015, section 5.2; the plain ones are too narrow for few observations.

    statistic: of each resample, (resamples,), of what `draw` gives; resamples of which it is NaN are left out. count:
    of observations, 2 and more.
    """
    from scipy.special import ndtr, stdtrit

    tail = float(ndtr(math.sqrt(count / (count - 1)) * stdtrit(count - 1, (1 - confidence) / 2)))
    low, high = np.nanquantile(statistic(draw(count, resamples, seed)), [tail, 1 - tail])
    return float(low), float(high)


def binomial_bounds(events: int, trials: int, confidence: float) -> tuple[float, float]:
    """Return the two-sided exact interval of a share: Clopper & Pearson, Biometrika 26, 1934."""
    from scipy.special import betaincinv

    tail = (1 - confidence) / 2
    low = float(betaincinv(events, trials - events + 1, tail)) if events else 0.0
    high = float(betaincinv(events + 1, trials - events, 1 - tail)) if events < trials else 1.0
    return low, high


def pool_counts(metric: Metric, name: str, counts: Sequence[Counts]) -> float | None:
    """Return a metric of all recordings; None where there was nothing to measure."""
    found = float(metric.pool(*_columns(name, counts)))
    return None if math.isnan(found) else found


def mean_of_clusters(metric: Metric, name: str, counts: Sequence[Counts], clusters: Sequence[str]) -> float:
    """Return the mean of a metric over clusters, each of which counts the same; NaN where nothing was measured."""
    numerators, denominators = _columns(name, counts)
    own = [np.array(clusters) == cluster for cluster in sorted(set(clusters))]
    values = [metric.pool(numerators[of_one], denominators[of_one]) for of_one in own if denominators[of_one].any()]
    return float(np.mean(values)) if values else math.nan


def drift(
    metric: Metric,
    name: str,
    baseline: Sequence[Counts],
    value: Sequence[Counts],
    groups: Groups,
    **settings: Any,
) -> dict[str, Any]:
    """Return what `paired_drift` does of a metric by name, from what is counted of each recording."""
    return paired_drift(metric, [*_columns(name, baseline), *_columns(name, value)], groups, **settings)


def paired_drift(metric: Metric, recordings: Sequence[Floats], groups: Groups, **settings: Any) -> dict[str, Any]:
    """Return the metric of baseline and candidate, their difference and its interval over paired clusters.

    An interval's ends are the outer ones of the cluster bootstrap's and of `_event_ends`: no loss seen is not no loss.

    recordings: numerators and denominators of the baseline, then of the candidate, (recordings,) each. settings:
    those of `interval`.

    Returns:
        baseline, value, drift: None where there was nothing to measure. ci: of the drift, None also for a single
        cluster. clusters: those in which there was something to measure. resolves: the smallest limit that a build
        of no drift would be sure to keep on this data, None without an interval. worst: by `speaker` and `condition`
        the one with the largest loss, of those with LEAST recordings and more.
    """
    columns = _sum_clusters(recordings, groups.clusters)

    def difference(drawn: Floats | None = None) -> Floats:
        (before, length), (after, other) = columns[:2], columns[2:]
        return np.asarray(metric.pool(after, other, drawn) - metric.pool(before, length, drawn))

    found = {"baseline": metric.pool(*columns[:2]), "value": metric.pool(*columns[2:]), "drift": difference()}
    point = float(found["drift"])
    ci = None
    if len(columns[0]) > 1 and not math.isnan(point):
        ends = [interval(difference, len(columns[0]), **settings)]
        if metric.pooling == "ratio":
            ends.append(_event_ends(metric, columns, settings["confidence"]))
        ci = [min(low for low, _ in ends), max(high for _, high in ends)]
    return {
        **{key: None if np.isnan(number) else float(number) for key, number in found.items()},
        "ci": ci,
        "clusters": len(columns[0]),
        "resolves": ci and (point - ci[0] if metric.higher_is_better else ci[1] - point),
        "worst": {
            kind: worst
            for kind, labels in (("speaker", groups.speakers), ("condition", groups.conditions))
            if (worst := _worst(metric, recordings, labels))
        },
        "higher_is_better": metric.higher_is_better,
    }


def certain(value: float, recordings: int) -> dict[str, Any]:
    """Return a metric that is measured on these recordings and not estimated from them, as `drift` returns one."""
    known = {"baseline": 0.0, "value": value, "drift": value, "ci": [value, value], "clusters": recordings}
    return {**known, "resolves": 0.0, "worst": {}, "higher_is_better": False}


def _worst(metric: Metric, columns: Sequence[Floats], labels: Sequence[str]) -> dict[str, Any] | None:
    """Return the group of recordings that loses most, with its loss; columns: (recordings,) each."""
    names, which = np.unique(np.array(labels), return_inverse=True)
    has_any = _has_any(columns)
    losses = {}
    for index in np.flatnonzero(np.bincount(which[has_any], minlength=len(names)) >= LEAST):
        if names[index]:
            inside = has_any & (which == index)
            before, after = (metric.pool(*(column[inside] for column in pair)) for pair in (columns[:2], columns[2:]))
            found = float(before - after if metric.higher_is_better else after - before)
            if not math.isnan(found):  # as of noise alone, in which the baseline finds nothing
                losses[str(names[index])] = found
    if not losses:
        return None
    name = max(losses, key=lambda label: losses[label])
    return {"name": name, "loss": losses[name]}


def loss(measured: Mapping[str, Any]) -> float:
    """Return a drift as a loss, so that more is worse; infinite where there was nothing to measure."""
    if measured["drift"] is None:
        return math.inf
    return -measured["drift"] if measured["higher_is_better"] else float(measured["drift"])


def loss_interval(measured: Mapping[str, Any]) -> tuple[float, float]:
    """Return the interval of a drift as that of a loss: from nothing to all where there is none."""
    if measured["ci"] is None:
        return -math.inf, math.inf
    low, high = measured["ci"]
    return (-high, -low) if measured["higher_is_better"] else (low, high)


def describe_drift(measured: Mapping[str, Any]) -> str:
    """Return a metric's value, its drift and its interval in words."""
    if measured["drift"] is None:
        return "nothing to measure"
    if measured["ci"] is None:
        return f"{measured['value']:.4f}, drift {measured['drift']:+.4f}, of one speaker or recording"
    low, high = measured["ci"]
    return f"{measured['value']:.4f}, drift {measured['drift']:+.4f} [{low:+.4f}, {high:+.4f}]"


def recordings_needed(limit: float, confidence: float) -> int:
    """Return how many recordings a build needs, of which none loses anything, to be sure to keep a limit over 0."""
    return math.ceil(math.log((1 - confidence) / 2) / math.log1p(-min(limit, 0.5)))


def estimate_clusters(measured: Mapping[str, Any], limit: float) -> int | None:
    """Estimate how many clusters a build without drift needs to keep a limit; None where there are enough.

    The uncertainty of few losses shrinks with the number of clusters; with many losses it takes more.
    """
    clusters, resolves = measured["clusters"], measured["resolves"]
    least = LEAST if clusters < LEAST else 0
    if resolves is None or limit <= 0 or resolves <= limit:
        return least or None
    needed = clusters * resolves / limit
    step = 10 ** max(0, math.floor(math.log10(needed)) - 1)  # two digits: it is no more exact than that
    return max(least, int(step * math.ceil(needed / step)))


def _event_ends(metric: Metric, columns: Sequence[Floats], confidence: float) -> tuple[float, float]:
    """Return the ends of a drift from how many clusters lost and gained, exact where few did.

    The drift is the mean loss less the mean gain. Each is the share of clusters that have one, with its exact
    interval, times what one has: `_mean_if_any`. The interval of the difference is of theirs by Zou & Donner,
    "Construction of confidence limits about effect measures", Statistics in Medicine 27, 2008.

    columns: numerators and denominators of baseline and candidate, (clusters,) each.
    """
    numerators, denominators, others, lengths = columns
    rate, total = numerators.sum() / denominators.sum(), lengths.sum()
    changes = (
        len(lengths) * ((others - numerators) - rate * (lengths - denominators)) / total
    )  # their mean is the drift
    amounts = [np.where(sign * changes > 0, sign * changes, 0) for sign in (1, -1)]
    up, down = (_mean_of_rare(of_one_sign, metric.most, confidence) for of_one_sign in amounts)
    point = up[1] - down[1]
    below = math.hypot(up[1] - up[0], down[2] - down[1])
    above = math.hypot(up[2] - up[1], down[1] - down[0])
    # What was never seen may be a loss; a gain that was never seen proves nothing and widens nothing.
    return (point - below, point) if metric.higher_is_better else (point, point + above)


def _mean_of_rare(amounts: Floats, most: float, confidence: float) -> tuple[float, float, float]:
    """Return the lower end, the mean and the upper end of amounts (clusters,), nearly all of which are 0.

    What the next cluster may lose is all that it has (`most`), until LEAST clusters have lost; then the most that one
    did.
    """
    count, events = len(amounts), int((amounts > 0).sum())
    low, high = binomial_bounds(events, count, confidence)
    mean = float(amounts.sum()) / events if events else 0.0
    largest = float(amounts.max()) if events >= LEAST else max(most, float(amounts.max(initial=0)))
    return low * mean, events / count * mean, high * (events * mean + largest) / (events + 1)


def _sum_clusters(columns: Sequence[Floats], clusters: Sequence[str]) -> list[Floats]:
    """Return each column (recordings,) summed in each cluster that has something to measure: (clusters,)."""
    _, which = np.unique(np.array(clusters), return_inverse=True)
    sums: list[Floats] = [np.bincount(which, column).astype(float) for column in columns]
    has_any = _has_any(sums)
    return [column[has_any] for column in sums]


def _has_any(columns: Sequence[Floats]) -> NDArray[np.bool_]:
    """Tell where there is something to measure: also errors over nothing, such as words that a silence has not."""
    return np.asarray(np.any([column != 0 for column in columns], axis=0))


def _columns(name: str, counts: Sequence[Counts]) -> tuple[Floats, Floats]:
    """Return numerators and denominators, (recordings,) each."""
    numerators, denominators = zip(*(of_one[name] for of_one in counts), strict=True)
    return np.array(numerators, float), np.array(denominators, float)


def verdict(measured: Mapping[str, Any], limit: float) -> str:
    """Return `pass` if all of the loss's interval is within the limit, `fail` if all is beyond, else `inconclusive`.

    It is inconclusive too where there was nothing to measure, or fewer than LEAST clusters.
    """
    if measured["ci"] is None or measured["clusters"] < LEAST:
        return "inconclusive"
    low, high = loss_interval(measured)
    if high <= limit:
        return "pass"
    return "fail" if low > limit else "inconclusive"
