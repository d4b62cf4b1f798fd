"""Resampling gives the samples that scipy gives by itself: data sets keep their bytes."""

import numpy as np
import pytest
from scipy.signal import resample_poly

from stages.corpora.resampling import resample

SPEECH = np.random.default_rng(0).uniform(-1, 1, 4001)


@pytest.mark.parametrize(("up", "down"), [(16000, 22050), (100, 93), (100, 115), (16000, 8000), (16000, 48000)])
def test_it_is_scipys_own(up: int, down: int):
    assert np.array_equal(resample(SPEECH, up, down), resample_poly(SPEECH, up, down))


def test_the_same_rate_is_the_same_audio():
    assert np.array_equal(resample(SPEECH, 16000, 16000), SPEECH)
