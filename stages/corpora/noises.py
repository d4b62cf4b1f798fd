"""Noises of several kinds, and babble from the speech of others. Their level is for the caller to set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from stages.corpora.manifest import SAMPLE_RATE

Samples = NDArray[np.float64]
Noise = Callable[[int, np.random.Generator], Samples]
"""Draws noise of a number of samples, of any level."""

TALKERS = 5
MAINS_HZ = 50
CLICKS_PER_SECOND = 6


def white(length: int, rng: np.random.Generator) -> Samples:
    """Draw noise that is as strong at every frequency."""
    return rng.standard_normal(length)


def pink(length: int, rng: np.random.Generator) -> Samples:
    """Draw noise that falls by 3 dB an octave above 10 Hz."""
    return _coloured(length, 0.5, rng)


def brown(length: int, rng: np.random.Generator) -> Samples:
    """Draw noise that falls by 6 dB an octave above 10 Hz."""
    return _coloured(length, 1.0, rng)


def hum(length: int, rng: np.random.Generator) -> Samples:
    """Draw the mains' hum with seven harmonics, over a little white noise."""
    t = np.arange(length) / SAMPLE_RATE
    harmonics = [np.sin(2 * np.pi * MAINS_HZ * k * t + rng.uniform(0, 2 * np.pi)) / k for k in range(1, 8)]
    return np.asarray(sum(harmonics) + 0.05 * white(length, rng))


def clicks(length: int, rng: np.random.Generator) -> Samples:
    """Draw short ringing clicks at random instants, over a little white noise."""
    hits = (rng.random(length) < CLICKS_PER_SECOND / SAMPLE_RATE) * rng.uniform(0.3, 1, length)
    decay = np.exp(-np.arange(SAMPLE_RATE // 20) / (SAMPLE_RATE / 400))
    ring = decay * rng.standard_normal(len(decay))
    noise = 0.02 * white(length, rng)
    for start in np.flatnonzero(hits):
        noise[start : start + len(ring)] += 8 * hits[start] * ring[: length - start]
    return noise


def engine(length: int, rng: np.random.Generator) -> Samples:
    """Draw a motor that turns faster and slower: twenty harmonics of 60 to 120 Hz, over brown noise."""
    hertz = rng.uniform(60, 120) * (1 + 0.1 * np.sin(2 * np.pi * np.arange(length) / SAMPLE_RATE / rng.uniform(2, 5)))
    turns = 2 * np.pi * np.cumsum(hertz) / SAMPLE_RATE
    harmonics = [np.sin(k * turns + rng.uniform(0, 2 * np.pi)) / np.sqrt(k) for k in range(1, 21)]
    return np.asarray(sum(harmonics) + 3 * _unit(brown(length, rng)))


def rain(length: int, rng: np.random.Generator) -> Samples:
    """Draw noise that is stronger at high frequencies, by 3 dB an octave, and comes in gusts."""
    gusts = 1 + 0.6 * np.sin(2 * np.pi * np.arange(length) / SAMPLE_RATE / rng.uniform(1, 4))
    return np.asarray(gusts * _coloured(length, -0.5, rng))


NOISES: Mapping[str, Noise] = {
    "white": white,
    "pink": pink,
    "brown": brown,
    "hum": hum,
    "clicks": clicks,
    "engine": engine,
    "rain": rain,
}


def babble(length: int, others: Sequence[Samples], rng: np.random.Generator) -> Samples:
    """Mix TALKERS of the `others`, each repeated from a random instant: speech without pauses.

    others: speech without pauses, (samples,) each, of who is not heard otherwise.
    """
    total = np.zeros(length)
    for talker in rng.choice(len(others), min(TALKERS, len(others)), replace=False):
        speech = np.roll(others[talker], int(rng.integers(len(others[talker]))))
        total += np.resize(_unit(speech), length)
    return total


def amplitude(decibel: float) -> float:
    """Return the factor of an amplitude that so many decibels are."""
    return float(10 ** (decibel / 20))


def root_mean_square(samples: Samples) -> float:
    """Return the level of samples as an amplitude; silence has that of the smallest 16-bit step."""
    return float(max(np.sqrt(np.mean(samples**2)), 1 / 32768))


def _unit(samples: Samples) -> Samples:
    """Return the samples at a level of 1."""
    return samples / root_mean_square(samples)


def _coloured(length: int, slope: float, rng: np.random.Generator) -> Samples:
    """Draw noise whose amplitude falls with the frequency to a power of `slope` above 10 Hz."""
    from scipy.fft import next_fast_len  # half a second, which those who only load a model need not spend

    fast = next_fast_len(length, real=True)
    spectrum = np.fft.rfft(rng.standard_normal(fast))
    shape = np.maximum(np.arange(len(spectrum)), 10.0 * fast / SAMPLE_RATE) ** -slope
    return np.fft.irfft(spectrum * shape, fast)[:length]
