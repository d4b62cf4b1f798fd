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
from stages.corpora import spoken_commands, voices
from stages.corpora.manifest import SAMPLE_RATE, Line, seeds, write
from stages.corpora.spoken_commands import CONDITIONS, WITHIN_TURN_SECONDS, Samples, babblers, pause
from stages.corpora.voices import Condition

SECONDS = 8.0  # a recording ends with the turn that reaches it
SPLITS: tuple[Split, ...] = ("calibration", "tuning", "evaluation", "final")  # in the order of their seeds
BETWEEN_TURNS_SECONDS = (0.9, 2.2)
KEPT = 4  # of the conditions, the first ones: of 48 recordings each has twelve, of which the worst condition is judged
END_OF_SENTENCE = "\u3002"


def make(seed: int, items: Mapping[Split, int], folder: Path) -> None:
    """Write WAV files and the manifests of all splits into `folder`. The same seed gives the same bytes."""
    for split, count in items.items():
        rng = np.random.default_rng(seeds(seed, SPLITS, split))
        conditions, crowd = CONDITIONS.get(split, (None,))[:KEPT], babblers(split) if split in CONDITIONS else {}
        lines = [
            _line(f"{split}-{n:02d}", split, conditions[n % len(conditions)], crowd, rng, folder)
            for n in progress.each(range(count), split)
        ]
        write(folder, split, lines)


def conversation(
    part: Split,
    rng: np.random.Generator,
    condition: Condition | None = None,
    crowd: Mapping[str, Samples] | None = None,
) -> tuple[Samples, list[tuple[int, int]], list[str]]:
    """Speak turns with several speakers of `part`, in one room.

    condition: whose noise there is; that of the room's own if None. crowd: whose speech its babble is.

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
    samples = np.concatenate(pieces)
    noise = None if condition is None else voices.noise(condition, len(samples), crowd or {}, rng)
    return spoken_commands.room(samples, segments, rng, noise), segments, texts


def _line(
    id_: str,
    split: Split,
    condition: Condition | None,
    crowd: Mapping[str, Samples],
    rng: np.random.Generator,
    folder: Path,
) -> Line:
    samples, segments, texts = conversation(split, rng, condition, crowd)
    text = "".join(text + END_OF_SENTENCE for text in texts)
    line = spoken_commands.line(id_, samples, segments, text, folder)
    return line.model_copy(update={"condition": condition.name}) if condition else line
