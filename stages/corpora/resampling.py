"""Resampling as scipy's `resample_poly` does it, with the filter of each ratio designed once."""

from __future__ import annotations

from functools import cache
from math import gcd
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import firwin, resample_poly


def resample(samples: NDArray[np.float64], up: int, down: int) -> NDArray[np.float64]:
    """Return audio, float64 (samples,), at up / down of its rate."""
    if up == down:
        return samples
    taps: Any = _lowpass(max(up, down) // gcd(up, down))  # which its types leave out
    return resample_poly(samples, up, down, window=taps)


@cache
def _lowpass(rate: int) -> NDArray[np.float64]:
    """Design `resample_poly`'s own filter for the larger side of a ratio, which costs as much as its use."""
    taps: NDArray[np.float64] = firwin(20 * rate + 1, 1 / rate, window=("kaiser", 5.0))
    return taps
