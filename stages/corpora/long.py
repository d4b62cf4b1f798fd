"""Long recordings for evaluation: what a data set's generator makes from another seed, joined one after another.

What counts tokens or frames, or knows their place, may be right for seconds and wrong for a minute. A generator's
recordings begin and end with a pause, so nothing is put between them. Its own recordings stay as they are.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from stages.core.errors import UserError
from stages.core.params.section import Split
from stages.corpora import manifest
from stages.corpora.manifest import SAMPLE_RATE, Line, Recording

SPLIT: Split = "evaluation"
SECONDS = (30.0, 60.0)  # of the first and the last; those between are spread evenly
CONDITION = "long"  # reports name the condition that a build does worst in
SPARE = 1.4  # times what is needed is made: recordings are of unequal length
OTHER_SEED = 2**16  # is added to the seed of the data set
SHARED = ("label", "language", "event", "speaker")
LATIN_WORDS = re.compile(r"(?<=[a-zA-Z0-9])\n(?=[a-zA-Z0-9])")


def add(folder: Path, count: int, make: Callable[[int], Path]) -> None:
    """Add `count` long recordings to the evaluation split of a data set.

    make: returns a folder with so many more recordings of the split, about as many of each kind. Each long one is of
    one kind: one language where the data set names languages, else one label, else one speaker where speakers have
    several recordings.

    Raises:
        UserError: the data set has no audio.
    """
    own = manifest.read(folder, SPLIT)
    usual = np.mean([recording.seconds for recording in own])
    if usual == 0:
        raise UserError(f"datasets.{folder.name}.long: found {count}, wanted 0: the data set is text, without audio")
    seconds = np.linspace(*SECONDS, count).tolist()
    kind = _kind(own)
    kinds = 1 if kind == "speaker" else len({getattr(recording, kind) for recording in own})
    needed = kinds * max(sum(seconds[start::kinds]) for start in range(min(kinds, count)))
    groups: dict[str, list[Recording]] = {}
    for recording in manifest.read(make(round(SPARE * needed / usual)), SPLIT):
        groups.setdefault(getattr(recording, kind), []).append(recording)
    left = {name: itertools.cycle(recordings) for name, recordings in groups.items()}
    lines = [Line(**recording.model_dump(exclude={"folder"})) for recording in own]
    for number, (target, name) in enumerate(zip(seconds, itertools.cycle(sorted(groups)), strict=False)):
        lines.append(_join(f"{SPLIT}-long-{number}", _take(left[name], target), folder))
    manifest.write(folder, SPLIT, lines)


def _kind(own: Sequence[Recording]) -> str:
    """Choose the field in which all parts of a long recording agree."""
    if any(recording.language for recording in own):
        return "language"
    speakers = [recording.speaker for recording in own]
    heard_again = 2 * len(set(speakers)) <= len(speakers)
    return "speaker" if heard_again and not any(recording.label for recording in own) else "label"


def _take(recordings: Iterator[Recording], seconds: float) -> list[Recording]:
    """Take recordings until together they last so many seconds."""
    taken: list[Recording] = []
    while sum(recording.seconds for recording in taken) < seconds:
        taken.append(next(recordings))
    return taken


def _join(id_: str, parts: Sequence[Recording], folder: Path) -> Line:
    """Join recordings into one, write it and return its line of the manifest; hotwords are those of the first.

    Its tags and its speaker are what all parts have in common.
    """
    samples = [part.samples().astype(np.float64) for part in parts]
    starts = np.cumsum([0, *map(len, samples)]) / SAMPLE_RATE
    segments = [
        (float(start + begin), float(start + end))
        for start, part in zip(starts, parts, strict=False)
        for begin, end in part.segments
    ]
    wav = f"wav/{id_}.wav"
    return Line(
        id=id_,
        wav=wav,
        seconds=float(starts[-1]),
        sha256=manifest.write_wav(folder / wav, np.concatenate(samples)),
        segments=segments,
        text=_join_texts([part.text for part in parts]),
        written=_join_texts([part.written for part in parts]),
        condition=CONDITION,
        hotwords=parts[0].hotwords,
        **{field: getattr(parts[0], field) for field in SHARED if len({getattr(part, field) for part in parts}) == 1},
    )


def _join_texts(texts: Sequence[str]) -> str:
    """Join texts as one writes them, with a space between two words of Latin letters or figures."""
    return LATIN_WORDS.sub(" ", "\n".join(text for text in texts if text)).replace("\n", "")
