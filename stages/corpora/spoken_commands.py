"""Mandarin digit strings and voice commands, spoken by espeak-ng in a room with some noise.

To learn from, every recording has another rate and pitch and a noise of another colour. What judges a model has voices
and conditions with names instead (stages/corpora/voices.py), of which some are harder.

The sentences are our own: a small grammar with a few hundred commands, and random digits. A sentence belongs to one
split by its hash and a speaker (a variant of espeak-ng's voice `cmn`) by the lists below, so no split shares either
with another or with `training`, from which `zoo/train_paraformer.py` trains the miniatures. Variants that no list
names do not speak Mandarin, or are effects. Two whose spectra are nearly the same are in one list.
"""

from __future__ import annotations

import hashlib
from bisect import bisect
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.fft import next_fast_len
from scipy.signal import fftconvolve

from stages.core import progress
from stages.core.params.section import Split
from stages.corpora import voices
from stages.corpora.espeak import speak, trim
from stages.corpora.manifest import SAMPLE_RATE, Line, record, seeds, write
from stages.corpora.noises import amplitude
from stages.corpora.voices import Condition, Take

Samples = NDArray[np.float64]
Part = Split | Literal["training"]
_T = TypeVar("_T")

PARTS: tuple[Part, ...] = ("evaluation", "calibration", "tuning", "training", "final")  # in the order of their seeds
SPEAKERS: dict[Part, tuple[str, ...]] = {
    "evaluation": ("belinda", "grandma", "gustave", "ian", "marcelo", "quincy", "travis", "victor"),
    "final": ("f4", "m2", "m4", "paul", "sandro", "shelby"),  # by lot, of fourteen that the evaluation once had
    "calibration": ("Denis", "Gene2", "Storm", "f1", "m6", "pablo", "rob", "robert"),
    "tuning": ("Alex", "aunty", "boris", "ed", "grandpa", "kaukovalta", "m8", "miguel"),
    "training": (
        *("Alicia", "Andy", "Annie", "Diogo", "Gene", "Henrique", "Hugo", "Jacky", "Lee", "Mario", "Michael", "Mike"),
        *("Mr serious", "Nguyen", "Reed", "RicishayMax", "Tweaky", "adam", "announcer", "benjamin", "caleb", "croak"),
        *("david", "edward", "edward2", "f2", "f3", "f5", "fast", "iven", "iven2", "iven3", "iven4", "john", "klatt"),
        *("klatt2", "klatt3", "klatt4", "klatt5", "klatt6", "linda", "m1", "m3", "m5", "m7", "max", "michel", "mike2"),
        *("norbert", "robosoft6", "robosoft8", "steph", "steph2", "steph3", "zac"),
    ),
}
SHARES: dict[Part, float] = {  # of the sentences
    "evaluation": 0.07,
    "final": 0.03,
    "calibration": 0.1,
    "tuning": 0.1,
    "training": 0.7,
}
_CONDITIONS = (
    Condition("clean", "white", (30, 40)),
    Condition("white 5-15 dB", "white", (5, 15)),
    Condition("babble 20-30 dB", "babble", (20, 30)),
    Condition("pink 5-15 dB", "pink", (5, 15)),
    Condition("fast", "pink", (20, 30), tempo=1.3),
    Condition("brown 0-10 dB", "brown", (0, 10)),
    Condition("hum 0-10 dB", "hum", (0, 10)),
)
# The sealed split is to tell whether choices hold, not whether harder noise is harder: its conditions are the same.
CONDITIONS: dict[Part, tuple[Condition, ...]] = {"evaluation": _CONDITIONS, "final": _CONDITIONS}

DIGITS = "零一二三四五六七八九"
_NUMBERS = tuple(tens + ones for tens in ("十", "二十", "三十", "四十", "五十") for ones in ("", *DIGITS[1:]))
_ROOMS = ("客厅", "卧室", "厨房", "书房")
COMMANDS: tuple[tuple[tuple[str, ...], ...], ...] = (
    (("打开", "关闭"), _ROOMS, ("的",), ("灯", "空调", "电视", "窗帘", "音箱")),
    (("今天", "明天", "后天", "周末"), ("早上", "中午", "晚上"), ("天气怎么样", "会下雨吗", "气温多少度")),
    (("把",), _ROOMS, ("空调", "灯", "音箱"), ("调到",), _NUMBERS, ("度",)),
    (("播放", "收藏"), ("第",), _NUMBERS, ("首歌", "条消息")),
    (_NUMBERS[:9], ("点", "点半"), ("提醒我",), ("起床", "开会", "吃药", "回家")),
    (("导航去", "打车去"), ("公司", "学校", "医院", "机场", "车站"), ("走高速", "走中山路", "")),
    (("给",), ("妈妈", "爸爸", "老师", "同学"), ("打电话", "发消息"), ("提醒吃药", "说我在开会", "说我晚上回家", "")),
)

WITHIN_TURN_SECONDS = (0.3, 0.6)
LEVEL_DBFS = -26.0  # ITU-T P.56 active speech level that telephony tests use
GAIN_DB = (-8.0, 8.0)
SNR_DB = (12.0, 35.0)
REVERBERATION_SECONDS = (0.1, 0.4)  # the time to fall by 60 dB: a furnished room
DIRECT_TO_REVERBERANT_DB = (3.0, 15.0)


def make(seed: int, items: Mapping[Split, int], folder: Path) -> None:
    """Write WAV files and the manifests of all splits into `folder`. The same seed gives the same bytes."""
    for split, count in items.items():
        if split in CONDITIONS:
            crowd = babblers(split)
            judging = progress.each(list(takes(split, seed, count)), split)
            lines = [_judging_line(f"{split}-{n:03d}", split, take, crowd, folder) for n, take in enumerate(judging)]
        else:
            rng = np.random.default_rng(seeds(seed, PARTS, split))
            lines = [_line(f"{split}-{n:03d}", split, rng, folder) for n in progress.each(range(count), split)]
        write(folder, split, lines)


def characters() -> list[str]:
    """Return every character that a sentence can have, sorted."""
    return sorted({c for command in COMMANDS for slot in command for c in "".join(slot)} | set(DIGITS))


def sentence(part: Part, rng: np.random.Generator) -> str:
    """Draw a digit string or a command that belongs to `part` and no other."""
    while True:
        if rng.random() < 0.5:
            text = "".join(DIGITS[i] for i in rng.integers(len(DIGITS), size=rng.integers(4, 10)))
        else:
            text = "".join(_draw_one(slot, rng) for slot in _draw_one(COMMANDS, rng))
        if part_of(text) == part:
            return text


def utterance(part: Part, rng: np.random.Generator) -> tuple[Samples, list[tuple[int, int]], str]:
    """Speak one or two sentences with one speaker of `part`, in a room.

    Returns:
        Float64 (samples,) at 16 kHz, the sample range [start, end) of each sentence, and the characters of both.
    """
    texts, speech = zip(*turn(part, rng), strict=True)
    samples, segments = join(speech, rng)
    return room(samples, segments, rng), segments, "".join(texts)


def takes(part: Part, seed: int, count: int) -> Iterator[Take]:
    """Yield `count` recordings of `part` that are to be made, each of a voice of its own."""
    return voices.takes(SPEAKERS[part], CONDITIONS[part], count, seeds(seed, PARTS, part))


def babblers(part: Part) -> dict[str, Samples]:
    """Return speech of a voice of each variant of `part`: what babble is made of."""
    rng = np.random.default_rng(PARTS.index(part))
    cast = [voices.cast(SPEAKERS[part], number, rng) for number in range(len(SPEAKERS[part]))]
    return {voice.variant: voice.speak(sentence(part, rng), "cmn") for voice in cast}


def recorded(
    take: Take, speech: Sequence[Samples], crowd: Mapping[str, Samples]
) -> tuple[Samples, list[tuple[int, int]]]:
    """Return sentences of a take, (samples,) each, in a room with the noise of its condition, and where each is."""
    samples, segments = join(speech, take.rng)
    others = {variant: speech for variant, speech in crowd.items() if variant != take.voice.variant}
    return room(samples, segments, take.rng, voices.noise(take.condition, len(samples), others, take.rng)), segments


def join(speech: Sequence[Samples], rng: np.random.Generator) -> tuple[Samples, list[tuple[int, int]]]:
    """Join sentences, (samples,) each, with pauses around them, and return where each is: [start, end)."""
    pieces, segments = [pause(0.2, 0.5, rng)], []
    for sentence_ in speech:
        start = sum(map(len, pieces))
        segments.append((start, start + len(sentence_)))
        pieces += [sentence_, pause(*WITHIN_TURN_SECONDS, rng)]
    return np.concatenate(pieces), segments


def turn(part: Part, rng: np.random.Generator) -> list[tuple[str, Samples]]:
    """Speak one or two sentences with one speaker of `part`: texts and clean speech, float64 (samples,) each."""
    variant = _draw_one(SPEAKERS[part], rng)
    prosody = {"rate": (140, 220), "pitch": (30, 70), "pitch_range": (35, 65)}
    settings = {name: int(rng.integers(*limits)) for name, limits in prosody.items()}
    texts = [sentence(part, rng) for _ in range(int(rng.integers(1, 3)))]
    return [(text, trim(speak(text, "cmn", variant, **settings))) for text in texts]


def pause(low: float, high: float, rng: np.random.Generator) -> Samples:
    """Return silence of a random number of seconds between two bounds."""
    return np.zeros(int(rng.uniform(low, high) * SAMPLE_RATE))


def _draw_one(options: Sequence[_T], rng: np.random.Generator) -> _T:
    return options[int(rng.integers(len(options)))]


def part_of(text: str, shares: Mapping[Part, float] = SHARES) -> Part:
    """Return the split that a text belongs to; shares: of all texts, those of each split."""
    position = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) / 2**32
    return list(shares)[bisect(list(accumulate(shares.values())), position)]


def room(
    samples: Samples, segments: list[tuple[int, int]], rng: np.random.Generator, noise: Samples | None = None
) -> Samples:
    """Bring clean speech to a level and add reverberation and coloured noise.

    noise: (samples,), beside speech of unit power; coloured noise of a drawn level where it is None.
    """
    speech = np.concatenate([samples[start:end] for start, end in segments])
    samples = samples * amplitude(LEVEL_DBFS) / np.sqrt(np.mean(speech**2))
    t = np.arange(1, SAMPLE_RATE // 2) / SAMPLE_RATE
    tail = rng.standard_normal(len(t)) * 10 ** (-3 * t / rng.uniform(*REVERBERATION_SECONDS))
    tail *= amplitude(-rng.uniform(*DIRECT_TO_REVERBERANT_DB)) / np.sqrt(np.sum(tail**2))
    samples = fftconvolve(samples, np.concatenate([[1.0], tail]))[: len(samples)]
    if noise is None:
        noise = _noise(len(samples), rng) * amplitude(-rng.uniform(*SNR_DB))
    noise = noise * amplitude(LEVEL_DBFS)
    return np.clip((samples + noise) * amplitude(rng.uniform(*GAIN_DB)), -1, 1)


def _noise(length: int, rng: np.random.Generator) -> Samples:
    """Draw noise of unit power whose density falls with frequency to a power of 0 (white) to 2 (brown)."""
    fast = next_fast_len(length, real=True)
    spectrum = np.fft.rfft(rng.standard_normal(fast))
    spectrum[1:] *= np.arange(1, len(spectrum)) ** (-rng.uniform(0, 2) / 2)
    spectrum[0] = 0
    noise: Samples = np.fft.irfft(spectrum, fast)[:length]
    noise /= np.sqrt(np.mean(noise**2))
    return noise


def _line(id_: str, split: Split, rng: np.random.Generator, folder: Path) -> Line:
    return line(id_, *utterance(split, rng), folder)


def _judging_line(id_: str, split: Split, take: Take, crowd: Mapping[str, Samples], folder: Path) -> Line:
    text = sentence(split, take.rng)
    samples, segments = recorded(take, [take.speak(text, "cmn")], crowd)
    return take.label(line(id_, samples, segments, text, folder))


def line(id_: str, samples: Samples, segments: list[tuple[int, int]], text: str, folder: Path) -> Line:
    """Write a recording, float64 (samples,), and return its manifest line; segments: sample ranges [start, end)."""
    seconds = [(start / SAMPLE_RATE, end / SAMPLE_RATE) for start, end in segments]
    return record(folder, id_, samples, segments=seconds, text=text)
