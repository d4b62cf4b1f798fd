"""Paired intervals: how far a candidate is from the baseline, and how sure that is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
    unit: str = ""
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

    data: arrays (n,) that are resampled together; statistic: vectorized over leading axes, takes
    them with `axis`. One observation has no spread to resample: its interval is a point.
    """
    from scipy import stats  # a second, which those who only judge intervals need not spend

    point = float(statistic(*data, axis=-1))
    if len(data[0]) < 2:
        return point, point
    result = stats.bootstrap(
        data,
        statistic,
        paired=True,
        vectorized=True,
        n_resamples=resamples,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(result.low), float(result.high)


def drift(
    metric: Metric, name: str, baseline: Sequence[Counts], value: Sequence[Counts], **settings: Any
) -> dict[str, Any]:
    """The metric of baseline and candidate, their difference and its interval over paired recordings."""
    columns = [np.array([c[name][i] for c in counts], float) for counts in (baseline, value) for i in (0, 1)]

    def difference(a: Floats, b: Floats, c: Floats, d: Floats, *, axis: int = -1) -> Floats:  # noqa: ARG001  scipy passes it
        return metric.pool(c, d) - metric.pool(a, b)

    return {
        "baseline": float(metric.pool(columns[0], columns[1])),
        "value": float(metric.pool(columns[2], columns[3])),
        "drift": float(difference(*columns)),
        "ci": list(interval(columns, difference, **settings)),
        "higher_is_better": metric.higher_is_better,
        "unit": metric.unit,
    }


def verdict(measured: Mapping[str, Any], limit: float) -> str:
    """`pass` if all of the loss's interval is within the limit, `fail` if all is beyond, else `inconclusive`."""
    low, high = measured["ci"]
    losses = (-high, -low) if measured["higher_is_better"] else (low, high)
    if losses[1] <= limit:
        return "pass"
    return "fail" if losses[0] > limit else "inconclusive"


def speedup(baseline: Floats, value: Floats, **settings: Any) -> tuple[float, tuple[float, float]]:
    """Median of the pairs' time ratios, baseline over candidate, and its interval."""

    def median_ratio(a: Floats, b: Floats, axis: int) -> Floats:
        return np.asarray(np.median(a / b, axis=axis))

    return float(np.median(baseline / value)), interval([baseline, value], median_ratio, **settings)
