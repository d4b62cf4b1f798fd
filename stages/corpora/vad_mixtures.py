"""Labelled mixtures for voice activity detection: one voice's utterances between silences, under synthetic noise.

Real speakers (stages/corpora/recorded_speech.py) and synthetic ones (stages/corpora/vad_voices.py): no split shares a
voice, a recording or a sentence with another. Utterances have no pause inside that is longer than 150 ms, or than
250 ms where a person speaks, so every boundary in a mixture is known to the sample. Noise goes on through all of a
mixture, but babble, which is speech, only while the voice speaks: nothing says that it is none. Each recording has one
voice, its `speaker`, and one `condition`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.core import progress
from stages.core.params.origins import MixturesDataset
from stages.core.params.section import Split
from stages.corpora import noises, recorded_speech
from stages.corpora.manifest import SAMPLE_RATE, Line, record, write
from stages.corpora.noises import amplitude, root_mean_square
from stages.corpora.sentences import PARTS
from stages.corpora.vad_voices import Voice, voices

Samples = NDArray[np.float64]
Segments = list[tuple[int, int]]
"""Sample ranges [start, end) of speech."""

GAP_SECONDS = (0.1, 3.0)  # drawn evenly on a logarithmic scale: half are under 0.55 s
EDGE_SECONDS = (0.4, 1.0)  # before the first utterance and after the last
USUAL_GAP = 0.85  # the mean, for how many utterances a mixture has room for
LEVEL_DBFS = -26.0  # ITU-T P.56 active speech level that telephony tests use
GAIN_DB = (-16.0, 6.0)
FLOOR_DB = 40.0  # of the room under babble, below the speech
FADE = SAMPLE_RATE // 200  # 5 ms


@dataclass(frozen=True)
class Condition:
    """What a mixture is like: its noise, `snr_db` (from, to) below the speech, and about how long it is."""

    name: str
    noise: str
    snr_db: tuple[float, float]
    seconds: tuple[float, float] = (2.0, 3.5)


SHORT = (  # of speech in white noise at 0 to 10 dB the fp32 model finds half
    Condition("clean", "white", (30, 40)),
    Condition("white 5-15 dB", "white", (5, 15)),
    Condition("babble 0-5 dB", "babble", (0, 5)),
    Condition("pink 10-20 dB", "pink", (10, 20)),
    Condition("brown 0-10 dB", "brown", (0, 10)),
    Condition("babble 5-20 dB", "babble", (5, 20)),
    Condition("white 15-30 dB", "white", (15, 30)),
    Condition("hum 0-10 dB", "hum", (0, 10)),
    Condition("pink 0-10 dB", "pink", (0, 10)),
    Condition("clicks 10-20 dB", "clicks", (10, 20)),
)
LONG = Condition("long", "pink", (10, 30), (16.0, 24.0))
CONDITIONS = (*SHORT, *SHORT, *SHORT, LONG)  # one mixture after another
FINAL_CONDITIONS = (  # of a split that is to tell how all of this holds elsewhere: noises that no other has
    Condition("clean", "rain", (30, 40)),
    Condition("babble 0 dB", "babble", (0, 0)),
    Condition("engine 0-10 dB", "engine", (0, 10)),
    Condition("rain 0-10 dB", "rain", (0, 10)),
    Condition("long", "engine", (10, 30), (16.0, 24.0)),
)
AS_RECORDED = "as recorded"
WHOLE = "mandarin-1"  # its recording is also heard as it is, with the pauses that people make


@dataclass(frozen=True)
class Take:
    """What a voice says in one mixture.

    rng: what the rest of the mixture is drawn with.
    """

    speaker: str
    condition: Condition
    utterances: list[Samples]
    rng: np.random.Generator

    @cached_property
    def speech(self) -> Samples:
        """Return the utterances without pauses between them."""
        return np.concatenate(self.utterances)


def make(dataset: MixturesDataset, archives: Mapping[str, Path], folder: Path) -> None:
    """Write WAV files and the manifests of all splits into `folder`. The same seed gives the same bytes.

    Raises:
        UserError: an archive lacks a recording.
    """
    recordings = recorded_speech.read(archives)
    for split, count in dataset.mixtures.items():
        takes = spoken(split, voices(split, recordings, dataset.seed), count, dataset.seed)
        lines = []
        for number, take in enumerate(progress.each(takes, split)):
            samples, segments = mix(take, [other for other in takes if other.speaker != take.speaker])
            name = f"{split}-{number:03d}"
            lines.append(_line(folder, name, samples, segments, take.speaker, take.condition.name))
        if any(speaker.name == WHOLE for speaker in recorded_speech.speakers(split)):
            samples = np.concatenate(recordings[WHOLE])
            segments = recorded_speech.find_utterances(samples)
            lines.append(_line(folder, f"{split}-whole", samples, segments, WHOLE, AS_RECORDED))
        write(folder, split, lines)


def spoken(part: Split, cast: Sequence[Voice], count: int, seed: int) -> list[Take]:
    """Draw what voices say in turn, each time in the next condition, for `count` mixtures."""
    takes = []
    for number in progress.each(range(count), f"{part}: speech"):
        rng = np.random.default_rng([seed, PARTS.index(part), number])
        voice, condition = cast[number % len(cast)], _condition(part, number, len(cast))
        utterances, left = [], rng.uniform(*condition.seconds)
        for utterance in voice.utterances(rng):
            utterances.append(utterance)
            left -= len(utterance) / SAMPLE_RATE + USUAL_GAP
            if left < 0:
                break
        takes.append(Take(voice.name, condition, utterances, rng))
    return takes


def _condition(part: Split, number: int, voices: int) -> Condition:
    """Return a mixture's condition; for calibration each voice is clean first, so that pruning can mix it anew."""
    if part == "calibration" and number < voices:
        return CONDITIONS[0]
    conditions = FINAL_CONDITIONS if part == "final" else CONDITIONS
    return conditions[number % len(conditions)]


def mix(take: Take, others: Sequence[Take]) -> tuple[Samples, Segments]:
    """Put silence around each utterance, then noise over all of it, and set a level.

    others: of whose speech babble is made.

    Returns:
        Float64 (samples,), which may exceed 1, and where the voice speaks.
    """
    rng = take.rng
    speech, segments = _between_gaps(take.utterances, rng)
    snr = amplitude(-rng.uniform(*take.condition.snr_db))
    if take.condition.noise == "babble":
        talk = noises.babble(len(speech), [other.speech for other in others], rng)
        noise = snr * _level(_within(talk, segments)) + amplitude(-FLOOR_DB) * _level(noises.white(len(speech), rng))
    else:
        noise = snr * _level(noises.NOISES[take.condition.noise](len(speech), rng))
    return amplitude(rng.uniform(*GAIN_DB)) * (speech + noise), segments


def _between_gaps(utterances: Sequence[Samples], rng: np.random.Generator) -> tuple[Samples, Segments]:
    low, high = np.log(GAP_SECONDS)
    gaps = np.exp(rng.uniform(low, high, len(utterances) + 1))
    gaps[[0, -1]] = rng.uniform(*EDGE_SECONDS, 2)
    silences = [np.zeros(int(gap * SAMPLE_RATE)) for gap in gaps]
    pieces, segments = [silences[0]], []
    for utterance, silence in zip(utterances, silences[1:], strict=True):
        start = sum(map(len, pieces))
        segments.append((start, start + len(utterance)))
        pieces += [_fade(_level(utterance)), silence]
    return np.concatenate(pieces), segments


def _within(samples: Samples, segments: Segments) -> Samples:
    """Silence the samples outside the segments."""
    kept = np.zeros(len(samples))
    for start, end in segments:
        kept[start:end] = _fade(samples[start:end])
    return kept


def _level(samples: Samples) -> Samples:
    """Scale the samples to the reference level, measured where they are not silent."""
    return samples * amplitude(LEVEL_DBFS) / root_mean_square(samples[samples != 0])


def _fade(samples: Samples) -> Samples:
    """Fade the samples in and out over 5 ms, so that their edges do not click."""
    gain = np.ones(len(samples))
    gain[:FADE] = np.linspace(0, 1, FADE)
    gain[-FADE:] = gain[:FADE][::-1]
    return samples * gain


def _line(folder: Path, id_: str, samples: Samples, segments: Segments, speaker: str, condition: str) -> Line:
    seconds = [(start / SAMPLE_RATE, end / SAMPLE_RATE) for start, end in segments]
    return record(folder, id_, samples, segments=seconds, speaker=speaker, condition=condition)
