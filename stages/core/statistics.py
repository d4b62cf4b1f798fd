"""Paired intervals: how far a candidate is from the baseline, and how sure that is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Counts = Mapping[str, tuple[float, float]]
"""One recording: metric to (numerator, denominator)."""


@dataclass(frozen=True)
class Metric:
    """How a metric is pooled over recordings and which way is better.

    pooling: `ratio` is the sum of numerators over the sum of denominators (so an F1 is over all
    events, not a mean of F1s); `max` is the largest numerator.
    """

    higher_is_better: bool
    pooling: Literal["ratio", "max"] = "ratio"

    def pool(self, numerator: Floats, denominator: Floats) -> Floats:
        """Pooled over the last axis, which is the recordings; 0/0 is 1 for a score, 0 for a rate of errors."""
        if self.pooling == "max":
            return np.asarray(numerator.max(axis=-1))
        top, bottom = numerator.sum(axis=-1), denominator.sum(axis=-1)
        empty = 1.0 if self.higher_is_better else 0.0
        return np.where(bottom == 0, empty, top / np.where(bottom == 0, 1, bottom))


def interval(
    data: Sequence[Floats], statistic: Callable[..., Floats], *, resamples: int, confidence: float, seed: int
) -> tuple[float, float]:
    """Percentile bootstrap over paired observations (Efron & Tibshirani, 1993, chapter 13).

    data: arrays (n,) that are resampled together; statistic: of their last axis, vectorized over
    leading ones. One observation has no spread to resample: its interval is a point.
    """
    point = float(statistic(*data))
    count = len(data[0])
    if count < 2:
        return point, point
    # Four lines in place of scipy.stats.bootstrap, whose import alone takes 1.4 s in every stage that measures.
    drawn = np.random.default_rng(seed).integers(count, size=(resamples, count))
    values = statistic(*(column[drawn] for column in data))
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def pooled(metric: Metric, name: str, counts: Sequence[Counts]) -> float:
    """The metric over all recordings."""
    return float(metric.pool(*_columns(name, counts)))


def drift(
    metric: Metric, name: str, baseline: Sequence[Counts], value: Sequence[Counts], **settings: Any
) -> dict[str, Any]:
    """The metric of baseline and candidate, their difference and its interval over paired recordings."""
    columns = [*_columns(name, baseline), *_columns(name, value)]

    def difference(a: Floats, b: Floats, c: Floats, d: Floats) -> Floats:
        return metric.pool(c, d) - metric.pool(a, b)

    return {
        "baseline": float(metric.pool(*columns[:2])),
        "value": float(metric.pool(*columns[2:])),
        "drift": float(difference(*columns)),
        "ci": list(interval(columns, difference, **settings)),
        "higher_is_better": metric.higher_is_better,
    }


def _columns(name: str, counts: Sequence[Counts]) -> tuple[Floats, Floats]:
    """Numerators and denominators, (recordings,) each."""
    numerators, denominators = zip(*(of_one[name] for of_one in counts), strict=True)
    return np.array(numerators, float), np.array(denominators, float)


def verdict(measured: Mapping[str, Any], limit: float) -> str:
    """`pass` if all of the loss's interval is within the limit, `fail` if all is beyond, else `inconclusive`."""
    low, high = measured["ci"]
    losses = (-high, -low) if measured["higher_is_better"] else (low, high)
    if losses[1] <= limit:
        return "pass"
    return "fail" if losses[0] > limit else "inconclusive"


def geometric_mean(ratios: Iterable[float]) -> float:
    """Of ratios, such as speedups."""
    return float(np.exp(np.mean(np.log(list(ratios)))))


def speedup(baseline: Floats, value: Floats, **settings: Any) -> tuple[float, tuple[float, float]]:
    """Median of the pairs' time ratios, baseline over candidate, and its interval."""

    def median_ratio(a: Floats, b: Floats) -> Floats:
        return np.asarray(np.median(a / b, axis=-1))

    return float(np.median(baseline / value)), interval([baseline, value], median_ratio, **settings)
