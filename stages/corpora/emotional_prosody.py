"""Neutral sentences in nine manners of speaking, for emotion2vec's nine labels: no emotion was felt by anyone.

espeak-ng speaks our own Mandarin and English sentences; a recipe for each label sets pitch, range and tempo, and
bends the result: contour, tremor, roughness, spectral tilt, breath, noise. The directions are those that Scherer,
"Vocal communication of emotion: a review of research paradigms", 2003, reports for acted speech; the sizes
are ours, and overlap so that a small model is right often but not always. Speakers and last words of a sentence
belong to one split. What judges a model has voices and conditions with names (stages/corpora/voices.py).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.fft import next_fast_len
from scipy.ndimage import uniform_filter1d

from stages.core import progress
from stages.core.params.section import Split
from stages.corpora import voices
from stages.corpora.espeak import speak, trim
from stages.corpora.manifest import SAMPLE_RATE, Line, record, seeds, write
from stages.corpora.noises import amplitude
from stages.corpora.voices import Condition, Take

Samples = NDArray[np.float64]
Between = tuple[float, float]


@dataclass(frozen=True)
class Recipe:
    """How a label is spoken: each value is drawn uniformly between two bounds.

    pitch, pitch_range, rate: espeak-ng's own (0 to 99, 0 to 99, words per minute). slope: semitones over the
    sentence. rise, swell: semitones and decibels over its last third. vibrato, tremolo: [depth, Hz] of pitch in
    semitones and of amplitude as a share. tilt: decibels an octave. breath: noise that follows the voice's
    envelope, decibels against it; snr: of steady noise, decibels.
    """

    pitch: Between
    pitch_range: Between
    rate: Between
    slope: Between = (-1, 1)
    rise: Between = (-1, 1)
    swell: Between = (-2, 2)
    vibrato: tuple[Between, Between] = ((0.0, 0.1), (3, 10))
    tremolo: tuple[Between, Between] = ((0.0, 0.1), (5, 60))
    tilt: Between = (-1, 1)
    breath: Between = (-40, -24)
    snr: Between = (22, 40)


RECIPES = {
    "angry": Recipe((45, 80), (55, 95), (210, 260), slope=(-4, 0), tilt=(3, 6), tremolo=((0.4, 0.7), (45, 80))),
    "disgusted": Recipe((5, 40), (30, 70), (100, 140), slope=(-6, -2), tremolo=((0.5, 0.9), (20, 32)), tilt=(-1, 1)),
    "fearful": Recipe(
        (55, 95), (10, 50), (175, 250), vibrato=((0.3, 0.9), (7, 11)), tremolo=((0.3, 0.7), (7, 11)), breath=(-20, -8)
    ),
    "happy": Recipe(
        (60, 95), (65, 99), (190, 240), vibrato=((1.5, 3.5), (2.5, 4)), tremolo=((0.6, 0.9), (2.5, 4)), tilt=(1, 3)
    ),
    "neutral": Recipe((30, 60), (35, 60), (150, 195)),
    "other": Recipe((30, 70), (0, 30), (125, 175), breath=(-3, 8)),  # half whispered
    "sad": Recipe((10, 45), (5, 35), (115, 155), slope=(-4, 0), swell=(-8, -2), tilt=(-6, -2), breath=(-22, -10)),
    "surprised": Recipe((45, 85), (50, 90), (135, 195), rise=(6, 12), swell=(12, 20), tilt=(-1, 2)),
    "unknown": Recipe((20, 80), (25, 75), (120, 215), snr=(-6, 6)),  # too noisy to tell
}
LABELS = tuple(RECIPES)

# Voice variants of espeak-ng.
PARTS: tuple[Split, ...] = ("calibration", "tuning", "evaluation", "final")  # in the order of their seeds
SPEAKERS: dict[Split, tuple[str, ...]] = {
    "calibration": ("Andy", "f5", "gustave", "linda", "m7", "Gene"),
    "tuning": ("steph3", "boris", "f4", "ian", "m8", "quincy"),
    "evaluation": ("Michael", "Andrea", "f2", "m3", "paul", "belinda", "max", "Lee", "steph"),
    "final": ("Annie", "Henrique", "Hugo", "Reed", "announcer", "iven2", "rob", "shelby"),
}
_CONDITIONS = (
    Condition("clean", "white", (40, 50)),
    Condition("pink 20-30 dB", "pink", (20, 30)),
    Condition("babble 20-30 dB", "babble", (20, 30)),
    Condition("hum 15-25 dB", "hum", (15, 25)),
)
# The sealed split is to tell whether choices hold, not whether harder noise is harder: its conditions are the same.
CONDITIONS: dict[Split, tuple[Condition, ...]] = {"evaluation": _CONDITIONS, "final": _CONDITIONS}
TRAINING_SPEAKERS = (
    *("Alex", "Alicia", "Denis", "Diogo", "Gene2", "Jacky", "Marco", "Mario", "Mike", "Nguyen"),
    *("adam", "anika", "antonio", "aunty", "benjamin", "caleb", "david", "ed", "edward", "f1", "f3", "grandma"),
    *("grandpa", "iven", "john", "kaukovalta", "m1", "m2", "m4", "m5", "m6", "marcelo", "michel", "miguel", "norbert"),
    *("pablo", "pedro", "sandro", "steph2", "travis", "victor", "zac"),
)

# Who and when, and what: 1 to 2 s together. Only the second part tells the splits apart.
_OPENINGS = {
    "cmn": [
        who + when for who, when in itertools.product(("他", "我们", "老师", "姐姐"), ("今天", "早上", "现在", ""))
    ],
    "en-us": ["He has", "They have", "She has", "We have", "The man has", "My sister has"],
}
Endings = Mapping[str, Sequence[str]]
ENDINGS: dict[Split, Endings] = {
    "calibration": {"cmn": ("看见一只猫", "要去买票"), "en-us": ("found the keys", "read a letter")},
    "tuning": {"cmn": ("打开了门", "在河边走"), "en-us": ("opened the box", "gone to town")},
    "evaluation": {
        "cmn": ("坐在窗边", "写了一封信", "要去学校"),
        "en-us": ("closed the door", "bought some bread", "seen the train"),
    },
    "final": {"cmn": ("种了一棵树", "弄丢了钥匙"), "en-us": ("rung the bell", "climbed the hill")},
}
TRAINING_ENDINGS: Endings = {
    "cmn": (
        *("在家吃饭", "去了公园", "喝了一杯茶", "买了苹果", "听见有人说话", "准备上班", "想找一本书", "把灯关了"),
        *("等公共汽车", "要开一个会", "在洗衣服", "拿着一把伞", "画了一张画", "到了北京", "说明白了", "换了衣服"),
    ),
    "en-us": (
        *("called the office", "moved the table", "made some coffee", "left the house", "taken the bus", "lost a shoe"),
        *("painted the wall", "been at home", "washed the cups", "fixed my car", "sent you a note", "cut the grass"),
        *("sold two tickets", "met the teacher", "broken a glass", "put it over there"),
    ),
}


def make(seed: int, items: Mapping[Split, int], folder: Path) -> None:
    """Write WAV files and the manifests of all splits into `folder`: `items` recordings each, balanced over labels.

    The same seed gives the same bytes.
    """
    for split, count in items.items():
        write(
            folder,
            split,
            list(
                _judging(split, seed, count, folder) if split in CONDITIONS else _learning(split, seed, count, folder)
            ),
        )


def _learning(split: Split, seed: int, count: int, folder: Path) -> Iterator[Line]:
    rng = np.random.default_rng(seeds(seed, PARTS, split))
    for number in progress.each(range(count), split):
        label = LABELS[number % len(LABELS)]
        speaker = SPEAKERS[split][number // len(LABELS) % len(SPEAKERS[split])]
        text, samples = utterance(label, speaker, ENDINGS[split], rng)
        yield record(folder, f"{split}-{number:03d}-{label}", samples, text=text, label=label)


def _judging(split: Split, seed: int, count: int, folder: Path) -> Iterator[Line]:
    drawn_with = seeds(seed, PARTS, split)
    rng = np.random.default_rng(drawn_with)
    crowd = {
        name: synthesize("neutral", voices.cast([name], 0, rng).speak, ENDINGS[split], rng)[1]
        for name in SPEAKERS[split]
    }
    takes = list(voices.takes(SPEAKERS[split], CONDITIONS[split], count, drawn_with))
    for number, take in enumerate(progress.each(takes, split)):
        label = LABELS[number // len(CONDITIONS[split]) % len(LABELS)]
        text, clean = synthesize(label, take.voice.speak, ENDINGS[split], take.rng)
        samples = _surround(act(label, clean, take.rng), take, crowd)
        yield take.label(record(folder, f"{split}-{number:04d}-{label}", samples, text=text, label=label))


def _surround(samples: Samples, take: Take, crowd: Mapping[str, Samples]) -> Samples:
    """Return the samples with the noise of the take's condition, at the peak that they had."""
    others = {variant: speech for variant, speech in crowd.items() if variant != take.voice.variant}
    noise = voices.noise(take.condition, len(samples), others, take.rng)
    noisy = samples + noise * np.sqrt(np.mean(samples**2))
    return np.asarray(noisy * np.abs(samples).max() / np.abs(noisy).max())


def utterance(label: str, speaker: str, endings: Endings, rng: np.random.Generator) -> tuple[str, Samples]:
    """Speak a drawn sentence with a voice variant in a label's manner; return its text and float64 (samples,)."""
    text, samples = synthesize(label, partial(speak, variant=speaker), endings, rng)
    return text, act(label, samples, rng)


def synthesize(
    label: str, speaker: Callable[..., Samples], endings: Endings, rng: np.random.Generator
) -> tuple[str, Samples]:
    """Synthesize a drawn sentence at the label's pitch, range and tempo; `act` adds the rest of the label's manner.

    speaker: speaks a text in a language, with settings of espeak-ng.
    """
    voice = ("cmn", "en-us")[int(rng.integers(2))]
    parts = [str(rng.choice(list(words))) for words in (_OPENINGS[voice], endings[voice])]
    text = ("" if voice == "cmn" else " ").join(parts)
    return text, trim(speaker(text, voice, **prosody(label, rng)))


def prosody(label: str, rng: np.random.Generator) -> dict[str, int]:
    """Draw espeak-ng's settings for a label."""
    recipe = RECIPES[label]
    settings = {"rate": recipe.rate, "pitch": recipe.pitch, "pitch_range": recipe.pitch_range}
    return {name: int(rng.uniform(*bounds)) for name, bounds in settings.items()}


def act(label: str, samples: Samples, rng: np.random.Generator) -> Samples:
    """Add the label's contour, tremor, tilt, breath and noise to a voice, float64 (samples,)."""
    recipe = RECIPES[label]
    return _add_noise(_tilt(_tremble(_bend(samples, recipe, rng), recipe, rng), recipe, rng), recipe, rng)


def _bend(samples: Samples, recipe: Recipe, rng: np.random.Generator) -> Samples:
    """Bend the pitch by contour and vibrato: play faster where the pitch is higher."""
    place = np.linspace(-0.5, 0.5, len(samples))
    semitones = rng.uniform(*recipe.slope) * place + rng.uniform(*recipe.rise) * _ramp(len(samples))
    semitones += _wave(len(samples), recipe.vibrato, rng)
    instants = np.cumsum(2 ** (-semitones / 12))
    return np.interp(np.arange(int(instants[-1])), instants, samples)


def _tremble(samples: Samples, recipe: Recipe, rng: np.random.Generator) -> Samples:
    """Modulate the amplitude: a swell, and a tremor when slow or roughness when fast."""
    swell = 10 ** (rng.uniform(*recipe.swell) / 20 * _ramp(len(samples)))
    return np.asarray(samples * swell * (1 + _wave(len(samples), recipe.tremolo, rng)))


def _ramp(length: int) -> Samples:
    """Return a ramp from 0 to 1 over the last third."""
    return np.clip(np.linspace(-2, 1, length), 0, 1)


def _wave(length: int, depth_and_hertz: tuple[Between, Between], rng: np.random.Generator) -> Samples:
    """Draw a sine of random depth, frequency and phase."""
    depth, hertz = (rng.uniform(*bounds) for bounds in depth_and_hertz)
    phase = rng.uniform(0, 2 * np.pi)
    return np.asarray(depth * np.sin(2 * np.pi * hertz / SAMPLE_RATE * np.arange(length) + phase))


def _tilt(samples: Samples, recipe: Recipe, rng: np.random.Generator) -> Samples:
    """Tilt the spectrum around 1 kHz, no further below 125 Hz."""
    length = next_fast_len(len(samples), real=True)
    octaves = np.log2(np.maximum(np.fft.rfftfreq(length, 1 / SAMPLE_RATE), 125) / 1000)
    gain = 10 ** (rng.uniform(*recipe.tilt) * octaves / 20)
    return np.asarray(np.fft.irfft(np.fft.rfft(samples, length) * gain, length)[: len(samples)])


def _add_noise(samples: Samples, recipe: Recipe, rng: np.random.Generator) -> Samples:
    """Add breath and steady noise, and set the peak to a level between -12 and -3 dBFS."""
    breath = _gain(rng, *recipe.breath) * np.sqrt(uniform_filter1d(samples**2, SAMPLE_RATE // 50).clip(0))
    steady = _gain(rng, *recipe.snr) ** -1 * np.sqrt(np.mean(samples**2))
    noise = breath * rng.standard_normal(len(samples)) + steady * rng.standard_normal(len(samples))
    noisy = samples + noise
    return np.asarray(noisy * _gain(rng, -12, -3) / np.abs(noisy).max())


def _gain(rng: np.random.Generator, low: float, high: float) -> float:
    return amplitude(rng.uniform(low, high))
