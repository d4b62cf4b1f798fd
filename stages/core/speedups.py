"""Speedups: how much faster a candidate is than the baseline, and where it lies when it is measured again."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def mean_speedup(measured: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the geometric mean of speedups, and that of their intervals' ends: what disturbs one may disturb all."""
    ends = np.log([(m["speedup"], *m["ci"]) for m in measured])
    ratio, low, high = np.exp(ends.mean(axis=0)).tolist()
    return {"speedup": ratio, "ci": [low, high]}


def describe_speedup(measured: Mapping[str, Any]) -> str:
    """Return a speedup and its interval in words."""
    low, high = measured["ci"]
    return f"{measured['speedup']:.2f}x [{low:.2f}, {high:.2f}]"


def speedup(blocks: Sequence[tuple[Floats, Floats]], confidence: float) -> dict[str, Any]:
    """Return the `speedup` over blocks of paired times, and as `ci` where it lies when it is measured again.

    A block's is the median of its pairs' ratios, baseline over candidate; that of all is the median of the blocks',
    which one disturbed block does not move. Pairs of a block share what the machine was like at that time, so that only
    blocks tell how it varies. The interval is, on logarithms, Student's prediction interval for as many blocks again:
    Hahn & Meeker, "Statistical Intervals", 1991, chapter 4. That is for their mean; a median has an error larger by the
    root of pi / 2.

    blocks: baseline's and candidate's times, (pairs,) each; 2 blocks and more.
    """
    from scipy.special import stdtrit

    logs = np.log([np.median(baseline / candidate) for baseline, candidate in blocks])
    count, middle = len(logs), np.median(logs)
    half = stdtrit(count - 1, (1 + confidence) / 2) * logs.std(ddof=1) * math.sqrt(2 / count * math.pi / 2)
    ratio, low, high = np.exp([middle, middle - half, middle + half]).tolist()
    return {"speedup": ratio, "ci": [low, high]}
