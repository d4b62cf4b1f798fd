"""Synthetic voices, each in several recordings of a few sentences, whose pairs are trials of speaker verification.

espeak-ng speaks our own Mandarin and English sentences in a room with noise: formant speech of a machine, not of
people. Every voice of a split speaks the same sentences, twice each: so of two recordings neither the sentence nor the
noise tells whether one voice spoke both. No split shares a variant of espeak-ng's, nor one whose spectrum differs by
under 0.5 from another's (as in stages/corpora/vad_voices.py), nor a sentence with another.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from stages.core import progress
from stages.core.params.section import Split
from stages.corpora import voices
from stages.corpora.manifest import Line, record, write
from stages.corpora.sentences import PARTS
from stages.corpora.spoken_commands import Samples, join, room
from stages.corpora.voices import Condition, Voice

VARIANTS: dict[Split, tuple[str, ...]] = {
    "calibration": ("Marco", "f5", "boris", "pedro", "Nguyen", "announcer"),
    "tuning": ("f3", "victor", "Jacky", "pablo", "m7", "david", "iven4", "Denis"),
    "evaluation": (
        *("Andrea", "Andy", "Annie", "Hugo", "Lee", "Michael", "antonio", "belinda", "caleb", "f2", "f4", "grandma"),
        *("ian", "linda", "paul", "quincy", "shelby", "travis", "zac", "gustave"),
    ),
    "final": ("Alicia", "aunty", "edward", "kaukovalta", "Diogo", "john", "Storm", "steph"),
}
TRAINING_VARIANTS = (
    *("Alex", "AnxiousAndy", "Mr serious", "Tweaky", "UniRobot", "ed", "f1", "iven", "iven2", "iven3", "klatt3"),
    *("mike2", "norbert", "sandro", "robosoft5", "robosoft7", "robosoft8", "Gene", "Gene2", "anika", "klatt"),
    *("klatt2", "michel", "miguel", "rob", "robert", "robosoft3", "m8", "adam", "benjamin", "edward2", "klatt4"),
    *("klatt6", "Mike", "grandpa", "m1", "m2", "m3", "m4", "m5", "m6", "max", "RicishayMax"),
)
SENTENCES: dict[Split, tuple[tuple[str, str], ...]] = {  # (language, text)
    "calibration": (
        ("cmn", "我们明天早上一起去爬山好不好"),
        ("en-us", "My brother fixed the old radio again"),
        ("cmn", "厨房里的灯已经亮了一个晚上"),
    ),
    "tuning": (
        ("en-us", "Nobody knew where the key was hidden"),
        ("cmn", "他把书放在桌子上就出门了"),
        ("en-us", "We were late because of the heavy rain"),
    ),
    "evaluation": (
        ("cmn", "昨天下午我们在公园里看见了一只小狗"),
        ("en-us", "The children walked slowly along the river"),
        ("cmn", "请把这封信交给前面那位先生"),
    ),
    "final": (
        ("en-us", "A small boat crossed the lake at sunset"),
        ("cmn", "老师让每个学生都写一篇作文"),
        ("en-us", "She bought fresh bread on her way home"),
    ),
}
TAKES = 6  # recordings of one voice: each sentence twice, in two conditions
CONDITIONS = (
    Condition("room", "white", (35, 45)),
    Condition("pink 15-25 dB", "pink", (15, 25)),
    Condition("babble 15-25 dB", "babble", (15, 25)),
    Condition("fast, hum 15-25 dB", "hum", (15, 25), tempo=1.2),
)
FINAL_CONDITIONS = (  # noises that no other split has
    Condition("room", "white", (35, 45)),
    Condition("rain 15-25 dB", "rain", (15, 25)),
    Condition("engine 10-20 dB", "engine", (10, 20)),
    Condition("slow, babble 10-20 dB", "babble", (10, 20), tempo=0.85),
)


def make(seed: int, items: Mapping[Split, int], folder: Path) -> None:
    """Write WAV files and the manifests of all splits into `folder`: TAKES recordings of each voice.

    The same seed gives the same bytes.
    """
    for split, count in items.items():
        crowd = _babblers(split, seed)
        numbers = progress.each(range(count), split)
        write(folder, split, [_line(split, number, seed, crowd, folder) for number in numbers])


def cast(split: Split, speaker: int, seed: int) -> Voice:
    """Return the voice of a split's speaker: each variant's turn comes again, with another vocal tract and pitch."""
    return voices.cast(VARIANTS[split], speaker, np.random.default_rng([seed, PARTS.index(split), speaker]))


def record_in_room(
    voice: Voice,
    sentence: tuple[str, str],
    condition: Condition,
    crowd: Mapping[str, Samples],
    rng: np.random.Generator,
) -> Samples:
    """Return a sentence, (language, text), by a voice in a room of its own, float64 (samples,).

    crowd: whose speech babble is made of, by variant.
    """
    language, text = sentence
    spoken = voice.speak(text, language, rate=round(voice.prosody["rate"] * condition.tempo * rng.uniform(0.9, 1.1)))
    samples, segments = join([spoken], rng)
    others = {variant: speech for variant, speech in crowd.items() if variant != voice.variant}
    return room(samples, segments, rng, voices.noise(condition, len(samples), others, rng))


def _line(split: Split, number: int, seed: int, crowd: Mapping[str, Samples], folder: Path) -> Line:
    speaker, take = divmod(number, TAKES)
    voice, sentence = cast(split, speaker, seed), SENTENCES[split][take // 2]
    conditions = FINAL_CONDITIONS if split == "final" else CONDITIONS
    condition = conditions[number % len(conditions)]
    rng = np.random.default_rng([seed, PARTS.index(split), speaker, take])
    samples = record_in_room(voice, sentence, condition, crowd, rng)
    known = {"text": sentence[1], "speaker": voice.name, "condition": condition.name}
    return record(folder, f"{split}-{number:04d}", samples, **known)


def _babblers(split: Split, seed: int) -> dict[str, Samples]:
    """Return speech of a voice of each variant of a split: what babble is made of."""
    language, text = SENTENCES[split][0]
    cast_ = [cast(split, number, seed) for number in range(len(VARIANTS[split]))]
    return {voice.variant: voice.speak(text, language) for voice in cast_}
