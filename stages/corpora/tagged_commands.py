"""Commands with a number, in three languages and four manners, beside speech alone, music or applause.

What SenseVoice says of a recording has a known truth here: the language, by the voice of espeak-ng that speaks; the
emotion, by the manner (stages/corpora/emotional_prosody.py; no emotion was felt by anyone); the event, by the sound
that is added; the text as it is spoken, and as one writes it, with figures.

The sentences are our own: a few commands with a number from 1 to 99, and strings of digits. A sentence belongs to one
split by its hash, a speaker by the lists of stages/corpora/spoken_commands.py, which has the room too; `training` is
what `zoo/train_sensevoice.py` trains the miniature from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.signal import fftconvolve

from stages.core import progress
from stages.core.params.section import Split
from stages.corpora import emotional_prosody, noises, spoken_commands, voices
from stages.corpora.manifest import SAMPLE_RATE, Line, record, write
from stages.corpora.spoken_commands import Part, Samples
from stages.corpora.voices import Condition, Take


@dataclass(frozen=True)
class Language:
    """How a language is spoken. voice: espeak-ng's. digits: from 0 to 9. join: what stands between words of a number.

    tens: the words for 10, 20, ... 90. templates: commands with a place for a number.
    """

    voice: str
    digits: tuple[str, ...]
    tens: tuple[str, ...]
    join: str
    templates: tuple[str, ...]
    teens: tuple[str, ...] = ()

    def spell(self, number: int) -> str:
        """Return a number from 1 to 99 in words."""
        if self.teens and 10 < number < 20:
            return self.teens[number - 11]
        tens, ones = divmod(number, 10)
        words = [*([self.tens[tens - 1]] if tens else []), *([self.digits[ones]] if ones else [])]
        return self.join.join(words)


ZH, JA = tuple("零一二三四五六七八九"), ("ゼロ", "いち", "に", "さん", "よん", "ご", "ろく", "なな", "はち", "きゅう")
LANGUAGES = {
    "zh": Language(
        "cmn",
        ZH,
        ("十", *(f"{digit}十" for digit in ZH[2:])),
        "",
        ("打开{}号灯", "音量调到{}", "播放第{}首歌", "我要去{}楼"),
    ),
    "en": Language(
        "en-us",
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
        ("ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"),
        " ",
        ("turn on light {}", "set the volume to {}", "play song number {}", "go to floor {}"),
        teens=(
            *("eleven", "twelve", "thirteen", "fourteen", "fifteen"),
            *("sixteen", "seventeen", "eighteen", "nineteen"),
        ),
    ),
    "ja": Language(
        "ja",
        JA,
        ("じゅう", *(f"{digit}じゅう" for digit in JA[2:])),
        "",
        ("{}ばんをつけて", "おんりょうを{}にして", "{}ばんのうたをかけて", "{}かいにいく"),
    ),
}
EMOTIONS = ("happy", "sad", "angry", "neutral")
EVENTS = ("Speech", "BGM", "Applause")
LEVEL_DB = (3.0, 12.0)  # of the speech over music or applause
NOTES_HZ = tuple(220 * 2 ** (semitones / 12) for semitones in (0, 2, 4, 7, 9, 12, 14, 16))  # a pentatonic scale
CLAPS_PER_SECOND = 60
DIGITS = (3, 6)  # in a string of them, from and below

LEARNING = (
    *(Condition(f"{kind} 8-30 dB", kind, (8, 30)) for kind in ("white", "pink", "brown", "hum")),
    Condition("clean", "white", (30, 40)),
)
_CONDITIONS = (
    Condition("clean", "white", (30, 40)),
    Condition("white 8-18 dB", "white", (8, 18)),
    Condition("pink 8-18 dB", "pink", (8, 18)),
    Condition("hum 5-15 dB", "hum", (5, 15)),
)
CONDITIONS: dict[Part, tuple[Condition, ...]] = {"evaluation": _CONDITIONS, "final": _CONDITIONS}


@dataclass(frozen=True)
class Utterance:
    """One recording: float64 (samples,) at 16 kHz, and what is true of it, as fields of its line in a manifest."""

    samples: Samples
    truth: Mapping[str, str]


def make(seed: int, items: Mapping[Split, int], folder: Path) -> None:
    """Write WAV files and the manifests of all splits into `folder`. The same seed gives the same bytes."""
    for split, count in items.items():
        drawn = progress.each(list(takes(split, seed, count)), split)
        write(folder, split, [_line(f"{split}-{n:03d}", take, split, folder) for n, take in enumerate(drawn)])


def takes(part: Part, seed: int, count: int) -> Iterator[Take]:
    """Yield `count` recordings of `part` that are to be made, each of a voice of its own."""
    seeds = [seed, spoken_commands.PARTS.index(part)]
    return voices.takes(spoken_commands.SPEAKERS[part], CONDITIONS.get(part, LEARNING), count, seeds)


def _line(id_: str, take: Take, split: Split, folder: Path) -> Line:
    made = utterance(take, split)
    return take.label(record(folder, id_, made.samples, **made.truth))


def utterance(take: Take, part: Part) -> Utterance:
    """Speak a sentence of `part` in a drawn language and manner, in a room, with a drawn event behind it."""
    rng = take.rng
    language, emotion, event = (str(rng.choice(names)) for names in (list(LANGUAGES), EMOTIONS, EVENTS))
    text, written = sentence(language, part, rng)
    prosody = emotional_prosody.prosody(emotion, rng)
    speech = take.voice.speak(text, LANGUAGES[language].voice, **prosody)
    samples, segments = spoken_commands.join([emotional_prosody.act(emotion, speech, rng)], rng)
    noise = voices.noise(take.condition, len(samples), {}, rng) + sound(event, len(samples), rng)
    truth = {"text": text, "written": written, "language": language, "label": emotion, "event": event}
    return Utterance(spoken_commands.room(samples, segments, rng, noise), truth)


def sentence(language: str, part: Part, rng: np.random.Generator) -> tuple[str, str]:
    """Draw a sentence that belongs to `part` and no other: as it is spoken, and as it is written."""
    words = LANGUAGES[language]
    while True:
        if rng.random() < 0.5:
            digits = rng.integers(10, size=rng.integers(*DIGITS)).tolist()
            spoken, written = words.join.join(words.digits[d] for d in digits), "".join(map(str, digits))
        else:
            number, template = int(rng.integers(1, 100)), str(rng.choice(words.templates))
            spoken, written = template.format(words.spell(number)), template.format(number)
        if spoken_commands.part_of(spoken) == part:
            return spoken, written


def sound(event: str, length: int, rng: np.random.Generator) -> Samples:
    """Draw what is to be heard beside speech of unit power, float64 (length,): nothing, music or applause."""
    if event == "Speech":
        return np.zeros(length)
    drawn = {"BGM": music, "Applause": applause}[event](length, rng)
    return np.asarray(drawn * noises.amplitude(-rng.uniform(*LEVEL_DB)) / noises.root_mean_square(drawn))


def music(length: int, rng: np.random.Generator) -> Samples:
    """Draw a tune: notes of a quarter to half a second with four harmonics that fade."""
    tune = np.zeros(length)
    start = 0
    while start < length:
        t = np.arange(min(int(rng.uniform(0.25, 0.5) * SAMPLE_RATE), length - start)) / SAMPLE_RATE
        hertz = float(rng.choice(NOTES_HZ)) * 2 ** float(rng.integers(0, 2))
        tune[start : start + len(t)] = sum(np.sin(2 * np.pi * hertz * k * t) / k for k in range(1, 5)) * np.exp(-3 * t)
        start += len(t)
    return tune


def applause(length: int, rng: np.random.Generator) -> Samples:
    """Draw many claps: short bursts of noise at random instants."""
    claps = (rng.random(length) < CLAPS_PER_SECOND / SAMPLE_RATE) * rng.uniform(0.3, 1, length)
    burst = rng.standard_normal(SAMPLE_RATE // 50) * np.exp(-np.arange(SAMPLE_RATE // 50) / (SAMPLE_RATE / 300))
    return np.asarray(fftconvolve(claps, burst)[:length])
