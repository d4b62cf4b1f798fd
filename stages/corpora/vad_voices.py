"""Who speaks in the mixtures for voice activity detection: real speakers, and synthetic voices for the rest.

A synthetic voice is a variant of espeak-ng's in one language, with a rate and a pitch of its own: formant speech, of a
machine, which stands in for speakers, languages and channels that no archive carries. A variant is in one part alone,
and so are those whose spectra differ by under 0.5 (root mean square over 40 bands, natural logarithm of power). Each
variant speaks several languages in turn, and in each it counts as another speaker: two such voices have other sounds,
another tempo and another pitch, but one timbre.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from stages.core.params.section import Split
from stages.corpora import recorded_speech
from stages.corpora.espeak import speak, trim
from stages.corpora.sentences import PARTS, sentence

Samples = NDArray[np.float64]

VARIANTS: dict[Split, tuple[str, ...]] = {
    "evaluation": (
        *("belinda", "f4", "f3", "grandma", "gustave", "ian", "m2", "m4", "m5", "marcelo", "paul", "quincy", "sandro"),
        *("shelby", "travis", "victor", "Denis", "steph", "steph2", "iven", "iven3", "iven4", "Alicia", "Annie"),
        *("Diogo", "Hugo", "Mario", "Michael", "Nguyen", "announcer", "caleb", "david", "john", "linda", "michel"),
        *("zac", "Jacky", "f5", "Andy", "Storm"),
    ),
    "calibration": (
        *("Gene", "Gene2", "f1", "f2", "m1", "m3", "rob", "robert", "adam", "klatt6", "edward", "edward2", "benjamin"),
        *("mike2", "klatt", "klatt2", "klatt3", "klatt4", "max", "RicishayMax", "robosoft8", "Alex", "Mike", "Reed"),
        *("Andrea", "Marco", "anika", "pedro", "AnxiousAndy", "robosoft3", "robosoft5", "robosoft7", "Lee", "Henrique"),
        *("UniRobot", "whisperf"),
    ),
    "tuning": (
        *("boris", "ed", "grandpa", "kaukovalta", "m8", "miguel", "m7", "Tweaky", "Mr serious", "pablo", "norbert"),
        "klatt5",
    ),
    "final": ("Demonic", "RicishayMax2", "antonio", "aunty", "robosoft6", "whisper"),
}
LANGUAGES: dict[Split, tuple[str, ...]] = {  # a variant speaks each of its part's; `final` shares none
    "evaluation": ("cmn", "en-us", "de", "fr", "es", "ru", "ja", "hi", "ar", "pt", "vi", "tr"),
    "calibration": (
        *("cmn", "en-us", "de", "es", "it", "ja", "ko", "sw", "cs", "ro", "nl", "sv", "fi", "hu", "uk", "el"),
    ),
    "tuning": ("cmn", "en", "fr", "pl", "id", "hi"),
    "final": ("da", "hr", "bg", "ca", "sk", "nb"),
}
PROSODY = {"rate": (140, 220), "pitch": (30, 70), "pitch_range": (35, 65)}


class Voice(Protocol):
    """One speaker, of one part."""

    @property
    def name(self) -> str:
        """Return the speaker's name in a manifest."""

    def utterances(self, rng: np.random.Generator) -> Iterator[Samples]:
        """Draw utterances without a pause, float64 (samples,) at 16 kHz, of any level and without end."""


@dataclass(frozen=True)
class Recorded:
    """A real speaker, and what was recorded of them."""

    name: str
    pool: Sequence[Samples]

    def utterances(self, rng: np.random.Generator) -> Iterator[Samples]:
        """Draw from the pool, each again only when all were drawn."""
        while True:
            yield from (self.pool[index] for index in rng.permutation(len(self.pool)))


@dataclass(frozen=True)
class Synthetic:
    """A variant of espeak-ng's in one language."""

    part: Split
    language: str
    variant: str
    prosody: Mapping[str, int]

    @property
    def name(self) -> str:
        """Return the name, which says that no person speaks."""
        return f"espeak {self.language} {self.variant}"

    def utterances(self, rng: np.random.Generator) -> Iterator[Samples]:
        """Speak sentences of the part."""
        while True:
            text = sentence(self.language, self.part, rng)
            yield trim(speak(text, self.language, self.variant, **self.prosody))


def voices(part: Split, recordings: Mapping[str, Sequence[Samples]], seed: int) -> list[Voice]:
    """Return the voices of a part, real ones first, then each variant in one language, in the next, and so on.

    recordings: of every real speaker, by name, as `recorded_speech.read` gives them.
    """
    real = [Recorded(s.name, recorded_speech.cut(recordings[s.name])) for s in recorded_speech.speakers(part)]
    rng = np.random.default_rng([seed, PARTS.index(part)])
    languages = LANGUAGES[part]
    made = [
        Synthetic(part, languages[(i + turn) % len(languages)], variant, _prosody(rng))
        for turn in range(len(languages))
        for i, variant in enumerate(VARIANTS[part])
    ]
    return [*real, *made]


def _prosody(rng: np.random.Generator) -> dict[str, int]:
    return {name: int(rng.integers(*limits)) for name, limits in PROSODY.items()}
