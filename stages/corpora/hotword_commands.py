"""Mandarin commands to call somebody, with names that sound like other names, and the words that a recognizer is given.

Two syllables make a name, and each syllable may be written with any of a few characters that sound the same; no audio
tells which. So a recognizer guesses, unless it is told what to listen for: the list of a recording has the name that
is said, then others, among them names that sound like it. A name belongs to one split by its hash, and a speaker by the
lists of `stages/corpora/spoken_commands.py`, which also has the room, so no split shares either with another or with
`training`, from which `zoo/train_seaco.py` trains the miniature.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from itertools import product
from pathlib import Path

import numpy as np

from stages.core import progress
from stages.core.params.section import Split
from stages.corpora import spoken_commands
from stages.corpora.espeak import speak, trim
from stages.corpora.manifest import Line, seeds, write
from stages.corpora.spoken_commands import Part, Samples, pause, room
from stages.corpora.voices import Take

# Characters with one reading in espeak-ng's dictionary, in groups of one sound, tone included.
HOMOPHONES = (
    *("明鸣铭", "华骅", "丽莉", "军君钧", "杰洁捷", "洋阳杨", "芳方", "静敬境", "文闻雯", "浩昊"),
    *("宇羽禹", "欣鑫馨", "佳嘉", "刚钢", "辉晖", "琴勤芹", "涛滔", "娜纳", "燕艳雁", "萍瓶屏"),
)
COMMANDS = ("给{}打电话", "呼叫{}", "告诉{}我在开会", "提醒{}吃药", "导航去找{}", "{}在客厅吗")
LISTED = 500  # words in the list of a recording
SHARES: dict[Part, float] = {  # of the names
    "evaluation": 0.14,
    "final": 0.06,
    "calibration": 0.1,
    "tuning": 0.1,
    "training": 0.6,
}


def make(seed: int, items: Mapping[Split, int], folder: Path) -> None:
    """Write WAV files and the manifests of all splits into `folder`. The same seed gives the same bytes."""
    for split, count in items.items():
        if split in spoken_commands.CONDITIONS:
            crowd = spoken_commands.babblers(split)
            judging = progress.each(list(spoken_commands.takes(split, seed, count)), split)
            lines = [_judging_line(f"{split}-{n:03d}", split, take, crowd, folder) for n, take in enumerate(judging)]
        else:
            rng = np.random.default_rng(seeds(seed, spoken_commands.PARTS, split))
            lines = [_line(f"{split}-{n:03d}", split, rng, folder) for n in range(count)]
        write(folder, split, lines)


def characters() -> list[str]:
    """Return every character that a command can have, sorted."""
    return sorted({c for text in (*HOMOPHONES, *COMMANDS) for c in text} - set("{}"))


@functools.cache
def names() -> tuple[str, ...]:
    """Return all names, those of every split."""
    pairs = [(first, second) for first, second in product(HOMOPHONES, repeat=2) if first != second]
    return tuple(a + b for first, second in pairs for a in first for b in second)


@functools.cache
def sound(name: str) -> tuple[int, ...]:
    """Return what a name sounds like: the group of each of its characters."""
    return tuple(next(i for i, group in enumerate(HOMOPHONES) if c in group) for c in name)


def utterance(part: Part, rng: np.random.Generator) -> tuple[Samples, list[tuple[int, int]], str, str]:
    """Speak one command with one speaker of `part`, in a room.

    Returns:
        Float64 (samples,) at 16 kHz, the sample range [start, end) of the speech, its characters, and the name in it.
    """
    name, text = command(part, rng)
    speakers = spoken_commands.SPEAKERS[part]
    variant = speakers[int(rng.integers(len(speakers)))]
    prosody = {"rate": (140, 220), "pitch": (30, 70), "pitch_range": (35, 65)}
    settings = {key: int(rng.integers(*limits)) for key, limits in prosody.items()}
    before, speech, after = pause(0.2, 0.5, rng), trim(speak(text, "cmn", variant, **settings)), pause(0.2, 0.5, rng)
    segments = [(len(before), len(before) + len(speech))]
    return room(np.concatenate([before, speech, after]), segments, rng), segments, text, name


def command(part: Part, rng: np.random.Generator) -> tuple[str, str]:
    """Draw a name of `part` and a command with it."""
    name = _draw_name(part, rng)
    return name, COMMANDS[int(rng.integers(len(COMMANDS)))].format(name)


def list_hotwords(name: str, rng: np.random.Generator) -> list[str]:
    """Return LISTED words for a recognizer that is to hear `name`: it first, then others in no order.

    Half of the names that sound like it are among them, wherever in the list.
    """
    same = [other for other in names() if sound(other) == sound(name) and other != name]
    kept = rng.permutation(same)[: (len(same) + 1) // 2].tolist()
    different = rng.permutation([other for other in names() if sound(other) != sound(name)])
    return [name, *rng.permutation([*kept, *different[: LISTED - 1 - len(kept)]]).tolist()]


def _draw_name(part: Part, rng: np.random.Generator) -> str:
    everyone = names()
    while True:
        name = everyone[int(rng.integers(len(everyone)))]
        if spoken_commands.part_of(name, SHARES) == part:
            return name


def _line(id_: str, split: Split, rng: np.random.Generator, folder: Path) -> Line:
    samples, segments, text, name = utterance(split, rng)
    line = spoken_commands.line(id_, samples, segments, text, folder)
    return line.model_copy(update={"hotwords": list_hotwords(name, rng)})


def _judging_line(id_: str, split: Split, take: Take, crowd: Mapping[str, Samples], folder: Path) -> Line:
    name, text = command(split, take.rng)
    samples, segments = spoken_commands.recorded(take, [take.speak(text, "cmn")], crowd)
    line = take.label(spoken_commands.line(id_, samples, segments, text, folder))
    return line.model_copy(update={"hotwords": list_hotwords(name, take.rng)})
