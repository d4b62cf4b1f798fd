"""Voices and conditions of the recordings that judge a model: every one has a synthetic voice of its own.

A voice is a variant of espeak-ng's with a rate, a pitch and a vocal tract of its own: formant speech of a machine, not
of people. A shorter vocal tract raises all formants alike (Fant, "Acoustic theory of speech production", 1960), as
playing speech faster does. Two voices of one variant are more alike than voices of two.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stages.corpora import noises
from stages.corpora.espeak import speak, trim
from stages.corpora.manifest import Line
from stages.corpora.resampling import resample

Samples = NDArray[np.float64]

TRACT_PERCENT = (90, 115)
PROSODY = {"rate": (140, 220), "pitch": (30, 70), "pitch_range": (35, 65)}


@dataclass(frozen=True)
class Voice:
    """A synthetic speaker. tract_percent: how fast its speech is played; prosody: espeak-ng's own settings."""

    variant: str
    tract_percent: int
    prosody: Mapping[str, int]

    @property
    def name(self) -> str:
        """Return the name, which says that no person speaks."""
        return " ".join(map(str, ("espeak", self.variant, self.tract_percent, *self.prosody.values())))

    def speak(self, text: str, language: str, **changed: int) -> Samples:
        """Return clean speech, float64 (samples,) at 16 kHz.

        changed: settings of espeak-ng in place of the voice's own.
        """
        speech = trim(speak(text, language, self.variant, **{**self.prosody, **changed}))
        return resample(speech, 100, self.tract_percent)


@dataclass(frozen=True)
class Condition:
    """How a recording is made: its noise, by name as in `stages.corpora.noises` or `babble`, and how fast is spoken.

    snr_db: (from, to), of the speech over the noise. tempo: above 1 is faster than the voice usually speaks.
    """

    name: str
    noise: str
    snr_db: tuple[float, float]
    tempo: float = 1.0


@dataclass(frozen=True)
class Take:
    """One recording that is to be made. rng: what the rest of it is drawn with."""

    voice: Voice
    condition: Condition
    rng: np.random.Generator

    def speak(self, text: str, language: str) -> Samples:
        """Return clean speech, float64 (samples,), at the condition's tempo."""
        return self.voice.speak(text, language, rate=round(self.voice.prosody["rate"] * self.condition.tempo))

    def label(self, line: Line) -> Line:
        """Return the line with who speaks, and how."""
        return line.model_copy(update={"speaker": self.voice.name, "condition": self.condition.name})


def cast(variants: Sequence[str], number: int, rng: np.random.Generator) -> Voice:
    """Draw a voice of the variant whose turn it is at `number`."""
    prosody = {name: int(rng.integers(*limits)) for name, limits in PROSODY.items()}
    return Voice(variants[number % len(variants)], int(rng.integers(*TRACT_PERCENT)), prosody)


def takes(variants: Sequence[str], conditions: Sequence[Condition], count: int, seed: Sequence[int]) -> Iterator[Take]:
    """Yield `count` recordings to be made, in the conditions in turn; more of them leave the first ones as they are."""
    for number in range(count):
        rng = np.random.default_rng([*seed, number])
        yield Take(cast(variants, number, rng), conditions[number % len(conditions)], rng)


def noise(condition: Condition, length: int, crowd: Mapping[str, Samples], rng: np.random.Generator) -> Samples:
    """Draw noise, float64 (length,), so far below unit power as the condition says. crowd: who babbles, by variant."""
    if condition.noise == "babble":
        drawn = noises.babble(length, list(crowd.values()), rng)
    else:
        drawn = noises.NOISES[condition.noise](length, rng)
    return np.asarray(drawn * noises.amplitude(-rng.uniform(*condition.snr_db)) / noises.root_mean_square(drawn))
