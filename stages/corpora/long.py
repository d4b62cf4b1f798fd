"""Long recordings for evaluation: what a data set's generator makes from another seed, joined one after another.

What counts tokens or frames, or knows their place, may be right for seconds and wrong for a minute. A generator's
recordings begin and end with a pause, so nothing is put between them. Its own recordings stay as they are.
"""

from __future__ import annotations

import itertools
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


def add(folder: Path, count: int, make: Callable[[int], Path]) -> None:
    """Add `count` long recordings to the evaluation split of a data set.

    make: returns a folder with so many more recordings of the split, as many of each label. Of those with a label
    recordings of that label are made.

    Raises:
        UserError: the data set has no audio.
    """
    own = manifest.read(folder, SPLIT)
    labels, usual = sorted({recording.label for recording in own}), np.mean([recording.seconds for recording in own])
    if usual == 0:
        raise UserError(f"datasets.{folder.name}.long: found {count}, wanted 0: the data set is text, without audio")
    seconds = np.linspace(*SECONDS, count).tolist()
    needed = sum(seconds) if len(labels) == 1 else len(labels) * SECONDS[1] * -(-count // len(labels))
    material = manifest.read(make(round(SPARE * needed / usual)), SPLIT)
    left = {label: iter([recording for recording in material if recording.label == label]) for label in labels}
    lines = [Line(**recording.model_dump(exclude={"folder"})) for recording in own]
    for number, (target, label) in enumerate(zip(seconds, itertools.cycle(labels), strict=False)):
        lines.append(_join(f"{SPLIT}-long-{number}", _take(left[label], target), folder))
    manifest.write(folder, SPLIT, lines)


def _take(recordings: Iterator[Recording], seconds: float) -> list[Recording]:
    """Take recordings until together they last so many seconds."""
    taken: list[Recording] = []
    while sum(recording.seconds for recording in taken) < seconds:
        taken.append(next(recordings))
    return taken


def _join(id_: str, parts: Sequence[Recording], folder: Path) -> Line:
    """Join recordings into one, write it and return its line of the manifest; hotwords are those of the first."""
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
        text="".join(part.text for part in parts),
        written="".join(part.written for part in parts),
        label=parts[0].label,
        condition=CONDITION,
        hotwords=parts[0].hotwords,
    )
