"""Audio for a teacher to label: variations of the calibration recordings, and new mixtures of what is said in them.

A teacher labels any audio, so variety counts for more than realism.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stages.corpora import noises
from stages.corpora.manifest import SAMPLE_RATE, Recording
from stages.corpora.noises import Samples

Audio = NDArray[np.float32]
Voice = list[Audio]
"""Utterances of one recording, float32 (samples,) each."""

GAP_SECONDS = (0.1, 3.0)  # between utterances, drawn evenly on a logarithmic scale
SNR_DB = (-2.0, 42.0)
NOISES = ("white", "pink", "brown", "hum", "clicks")
SPEED = (0.8, 1.25)
BABBLE_SHARE = 0.25  # of the mixtures


def vary(recordings: Sequence[Audio], copies: int, seed: int) -> list[Audio]:
    """Make `copies` variations of each recording: other speed, colour, level and noise, some with a second voice.

    recordings: float32 (samples,) in [-1, 1). Speed: Ko et al., "Audio augmentation for speech recognition", 2015.
    """
    rng = np.random.default_rng(seed)
    return [_variation(recordings, index, rng) for _ in range(copies) for index in range(len(recordings))]


def _variation(recordings: Sequence[Audio], index: int, rng: np.random.Generator) -> Audio:
    audio = _colour(_change_speed(recordings[index], rng), rng)
    if rng.random() < 0.3:
        other = _colour(_change_speed(recordings[int(rng.integers(len(recordings)))], rng), rng)
        shared = min(len(audio), len(other))
        audio[:shared] += _gain(rng, -25, 0) * other[:shared]
    if rng.random() < 0.6:
        noise = _colour(rng.standard_normal(len(audio)), rng, slope=rng.uniform(0, 24))
        audio += _gain(rng, -45, 0) * _level(audio) / _level(noise) * noise
    return np.clip(_gain(rng, -50, -18) / _level(audio) * audio, -1, 1).astype(np.float32)


def cut_utterances(recordings: Sequence[Recording]) -> list[Voice]:
    """Cut recordings at their segments; where no recording has any, each is an utterance."""
    labelled = [r for r in recordings if r.segments] or recordings
    return [_utterances(recording) for recording in labelled]


def _utterances(recording: Recording) -> Voice:
    samples = recording.samples()
    segments = recording.segments or [(0, recording.seconds)]
    return [samples[int(start * SAMPLE_RATE) : int(end * SAMPLE_RATE)] for start, end in segments]


def mix(voices: Sequence[Voice], length: int, rng: np.random.Generator) -> Audio:
    """Mix what one voice says, at another speed and colour, with noise or with what others say.

    length: samples, of over a second.

    Returns:
        Float32 (length,) in [-1, 1).
    """
    speech, spoken = _turns(voices[int(rng.integers(len(voices)))], length, rng)
    speech = _colour(speech, rng) / _level(speech[spoken])
    if rng.random() < BABBLE_SHARE:
        noise = _babble(voices, spoken, rng)
    else:
        noise = noises.NOISES[str(rng.choice(NOISES))](length, rng)
        noise = _colour(noise, rng, slope=rng.uniform(-6, 6))
    mixed = speech + noise / _level(noise) * _gain(rng, -SNR_DB[1], -SNR_DB[0])
    return np.clip(_gain(rng, -46, -16) * mixed, -1, 1).astype(np.float32)


def _turns(voice: Voice, length: int, rng: np.random.Generator) -> tuple[Samples, NDArray[np.bool_]]:
    """Lay out a voice's utterances with gaps between, from the first second on; return audio and where it speaks."""
    low, high = np.log(GAP_SECONDS)
    speech, spoken = np.zeros(length), np.zeros(length, bool)
    speed, start = rng.uniform(*SPEED), int(rng.uniform(0, 1) * SAMPLE_RATE)
    while start < length:
        utterance = _resample(voice[int(rng.integers(len(voice)))], speed)[: length - start]
        place = slice(start, start + len(utterance))
        speech[place], spoken[place] = utterance, True
        start += len(utterance) + int(np.exp(rng.uniform(low, high)) * SAMPLE_RATE)
    return speech, spoken


def _babble(voices: Sequence[Voice], spoken: NDArray[np.bool_], rng: np.random.Generator) -> Samples:
    """Mix what others say, one time in two only while the voice speaks, over noise that is 25 to 50 dB weaker."""
    others = [np.concatenate(voices[i]) for i in rng.integers(len(voices), size=noises.TALKERS)]
    talk = noises.babble(len(spoken), others, rng)
    if rng.random() < 0.5:
        talk *= spoken
    return talk / _level(talk) + _gain(rng, -50, -25) * noises.white(len(spoken), rng)


def _change_speed(audio: Audio, rng: np.random.Generator) -> Samples:
    return _resample(audio, rng.uniform(*SPEED))


def _resample(audio: Audio, factor: float) -> Samples:
    """Play `factor` times as fast, by linear interpolation: pitch, formants and tempo move together."""
    instants = np.arange(int(len(audio) / factor)) * factor
    return np.asarray(np.interp(instants, np.arange(len(audio)), audio), np.float64)


def _colour(audio: Samples, rng: np.random.Generator, slope: float = 0) -> Samples:
    """Filter with a smooth random response within 8 dB, `slope` dB down from the lowest frequency to the highest."""
    from scipy.fft import next_fast_len  # half a second, which those who only load a model need not spend

    length = next_fast_len(len(audio), real=True)
    bins = np.sqrt(np.linspace(0, 1, length // 2 + 1))
    decibel = np.interp(bins, np.linspace(0, 1, 8), rng.uniform(-8, 8, 8)) - slope * bins
    filtered: Samples = np.fft.irfft(np.fft.rfft(audio, length) * 10 ** (decibel / 20), length)
    return filtered[: len(audio)]


def _gain(rng: np.random.Generator, low: float, high: float) -> float:
    return noises.amplitude(rng.uniform(low, high))


def _level(audio: Samples) -> float:
    return float(np.sqrt(np.mean(audio**2)) + 1e-9)
