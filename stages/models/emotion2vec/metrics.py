"""How good an emotion recognizer is: labels, scores and embeddings against the fp32 baseline and the known truth."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.core.errors import UserError
from stages.core.statistics import Counts
from stages.corpora.manifest import Recording
from stages.models.accuracy import EMOTION2VEC
from stages.models.emotion2vec.network import load_tokenizer

Floats = NDArray[np.float32]

MODES, METRICS = EMOTION2VEC
HEADLINE = "label_agreement"
UNKNOWN = "unknown"  # what the model's authors call the label that its token list has as <unk>


@dataclass(frozen=True)
class Outcome:
    """What the recognizer makes of one recording.

    scores: a probability for each label, float32 (labels,). embedding: of the utterance, float32 (embed_dim,).
    """

    scores: Floats
    embedding: Floats


@functools.cache
def labels(folder: Path) -> tuple[str, ...]:
    """Read the English name of each score, in order: `angry` for `生气/angry`, `unknown` for `<unk>`."""
    tokens = load_tokenizer(folder).token_list
    names = (token.rpartition("/")[2] for token in tokens if not token.startswith("unuse"))
    return tuple(UNKNOWN if name == "<unk>" else name for name in names)


def measure(
    folder: Path, recordings: Sequence[Recording], references: Sequence[Outcome], outcomes: Sequence[Outcome]
) -> list[Counts]:
    """Count every metric of each recording as (numerator, denominator).

    Weighted accuracy is the share of recordings that are right; unweighted accuracy the mean over labels of the share
    that is right, so that a frequent label counts no more than a rare one (Schuller et al., "The INTERSPEECH 2009
    Emotion Challenge", 2009). For the second a recording weighs as much as its label is rare. Score distance is the
    total variation between two distributions over labels: 0 for equal, 1 for disjoint.

    Raises:
        UserError: a recording's label is not one of the model's.
    """
    names = labels(folder)
    for recording in recordings:
        if recording.label not in names:
            raise UserError(
                f"{recording.folder}: {recording.id}: found label {recording.label!r}, wanted one of {', '.join(names)}"
            )
    count = Counter(r.label for r in recordings)
    return [
        _measured(names.index(r.label), 1 / count[r.label], reference, outcome)
        for r, reference, outcome in zip(recordings, references, outcomes, strict=True)
    ]


def _measured(truth: int, weight: float, reference: Outcome, outcome: Outcome) -> Counts:
    found = int(outcome.scores.argmax())
    right = float(found == truth)
    a, b = (x.embedding.astype(np.float64) for x in (reference, outcome))
    return {
        "label_agreement": (float(found == int(reference.scores.argmax())), 1),
        "embedding_cosine": (float(a @ b) / float(np.linalg.norm(a) * np.linalg.norm(b) + 1e-12), 1),
        "score_distance": (float(np.abs(outcome.scores - reference.scores).sum() / 2), 1),
        "weighted_accuracy": (right, 1),
        "unweighted_accuracy": (right * weight, weight),
    }


def write_outcomes(folder: Path, mode: str, outcomes: Sequence[Outcome]) -> None:
    """Keep outcomes of one mode for `read_outcomes`."""
    np.savez_compressed(
        folder / f"{mode}.npz",
        scores=np.stack([o.scores for o in outcomes]),
        embedding=np.stack([o.embedding for o in outcomes]),
    )


def read_outcomes(folder: Path, mode: str) -> list[Outcome]:
    """Read what `write_outcomes` kept, in the same order."""
    with np.load(folder / f"{mode}.npz") as kept:
        return [Outcome(*of_one) for of_one in zip(kept["scores"], kept["embedding"], strict=True)]
