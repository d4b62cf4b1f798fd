"""Long recordings: turns of several speakers with pauses between them, in one room.

What is said, by whom, and which split has it, is as in `stages/corpora/spoken_commands.py`. A pause between turns is
mostly longer than the silence of 800 ms that ends a segment of FunASR's voice activity detector, one within a turn is
shorter. In the known text each sentence ends with a full stop, so that inverse text normalisation does not read the
digits of two sentences as one number.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from stages.core import progress
from stages.core.params.section import Split
from stages.corpora import spoken_commands
from stages.corpora.manifest import SAMPLE_RATE, Line, write
from stages.corpora.spoken_commands import WITHIN_TURN_SECONDS, Samples, pause

SECONDS = 30.0  # a recording ends with the turn that reaches it
BETWEEN_TURNS_SECONDS = (0.9, 2.2)
END_OF_SENTENCE = "\u3002"


def make(seed: int, items: Mapping[Split, int], folder: Path) -> None:
    """Write WAV files and the manifests of all splits into `folder`. The same seed gives the same bytes."""
    for index, (split, count) in enumerate(items.items()):
        rng = np.random.default_rng([seed, index])
        write(
            folder, split, [_line(f"{split}-{n:02d}", split, rng, folder) for n in progress.each(range(count), split)]
        )


def conversation(part: Split, rng: np.random.Generator) -> tuple[Samples, list[tuple[int, int]], list[str]]:
    """Speak turns with several speakers of `part`, in one room.

    Returns:
        Float64 (samples,) at 16 kHz, the sample range [start, end) of each sentence, and the sentences.
    """
    pieces, segments, texts = [pause(*BETWEEN_TURNS_SECONDS, rng)], [], []
    while sum(map(len, pieces)) < SECONDS * SAMPLE_RATE:
        for text, speech in spoken_commands.turn(part, rng):
            start = sum(map(len, pieces))
            segments.append((start, start + len(speech)))
            texts.append(text)
            # One level for all: some voices of espeak-ng are a fifth as loud as others.
            pieces += [speech / np.sqrt(np.mean(speech**2)), pause(*WITHIN_TURN_SECONDS, rng)]
        pieces[-1] = pause(*BETWEEN_TURNS_SECONDS, rng)
    return spoken_commands.room(np.concatenate(pieces), segments, rng), segments, texts


def _line(id_: str, split: Split, rng: np.random.Generator, folder: Path) -> Line:
    samples, segments, texts = conversation(split, rng)
    text = "".join(text + END_OF_SENTENCE for text in texts)
    return spoken_commands.line(id_, samples, segments, text, folder)
