"""How good speaker embeddings are: how near those of the fp32 baseline, and how well they tell speakers apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.core.statistics import Counts
from stages.corpora.manifest import Recording
from stages.models.accuracy import CAMPPLUS

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

MODES, METRICS = CAMPPLUS
HEADLINE = "embedding_cosine"


@dataclass(frozen=True)
class Outcome:
    """What the network makes of one recording. embedding: float32 (embedding_size,)."""

    embedding: NDArray[np.float32]


def measure(
    folder: Path, recordings: Sequence[Recording], references: Sequence[Outcome], outcomes: Sequence[Outcome]
) -> list[Counts]:
    """Count every metric of each recording as (numerator, denominator).

    Every two recordings are a trial, scored by the cosine of their embeddings: of one speaker, or of two. The equal
    error rate is that of all trials, of those whose recordings have one text, and of those that have two.
    """
    del folder
    wanted, found = (_unit_vectors(of_all) for of_all in (references, outcomes))
    cosines = (wanted * found).sum(axis=1)
    scores = found @ found.T
    one_speaker = _match_labels([r.speaker or r.id for r in recordings])
    one_text = _match_labels([r.text for r in recordings])
    trials = {
        "eer": np.ones_like(one_text),
        "eer_same_sentence": one_text,
        "eer_other_sentence": ~one_text,
    }
    errors = {name: _equal_errors(scores, one_speaker, used) for name, used in trials.items()}
    return [
        {
            "embedding_cosine": (float(cosine), 1),
            "embedding_max_distance": (1 - float(cosine), 1),
            **{name: (float(found[0, number]), float(found[1, number])) for name, found in errors.items()},
        }
        for number, cosine in enumerate(cosines)
    ]


def equal_error_threshold(same: Floats, other: Floats) -> float:
    """Return the score of a trial of one speaker at which misses and false alarms are the closest to equally frequent.

    A trial is accepted at it or above. Martin et al., "The DET curve in assessment of detection task performance",
    1997.

    same, other: scores of trials of one speaker and of two, 1 and more each.
    """
    same, other = np.sort(same), np.sort(other)
    misses = np.searchsorted(same, same) / len(same)
    false_alarms = 1 - np.searchsorted(other, same) / len(other)
    return float(same[np.abs(misses - false_alarms).argmin()])


def _equal_errors(scores: Floats, one_speaker: Mask, used: Mask) -> Floats:
    """Share out the equal error rate of the `used` trials over recordings: (2, recordings), above and below the line.

    The rate is the mean of two shares, of misses and of false alarms, and each recording has its own trials' part in
    both: their sums are the rate, and the parts of a speaker's recordings come and go with the speaker when speakers
    are resampled. A false alarm is of two speakers, each of whom may be drawn or not. So where a speaker's share of
    them differs from that of all, the difference counts twice; else the interval of it would be half as wide as it is
    (Hoeffding, "A class of statistics with asymptotically normal distribution", 1948). The threshold is held.

    scores: (recordings, recordings), symmetric. one_speaker: which trials are of one.
    """
    used = used & ~np.eye(len(scores), dtype=bool)
    same, other = used & one_speaker, used & ~one_speaker
    if not same.any() or not other.any():
        return np.zeros((2, len(scores)))
    accepted = scores >= equal_error_threshold(scores[same], scores[other])
    misses, false_alarms = ((kind & wrong).sum(axis=1) for kind, wrong in ((same, ~accepted), (other, accepted)))
    of_same, of_other = same.sum(axis=1) / same.sum(), other.sum(axis=1) / other.sum()
    rate = false_alarms.sum() / other.sum()
    numerators = misses / same.sum() + 2 * false_alarms / other.sum() - rate * of_other
    return np.stack([numerators / 2, (of_same + of_other) / 2])


def _match_labels(labels: Sequence[str]) -> Mask:
    """Tell which two recordings have one label: (recordings, recordings)."""
    _, which = np.unique(np.array(labels), return_inverse=True)
    return np.asarray(which[:, None] == which)


def _unit_vectors(outcomes: Sequence[Outcome]) -> Floats:
    """Stack embeddings at length 1: (recordings, embedding_size)."""
    embeddings = np.stack([outcome.embedding for outcome in outcomes]).astype(np.float64)
    return np.asarray(embeddings / (np.linalg.norm(embeddings, axis=1, keepdims=True) + 1e-12))


def write_outcomes(folder: Path, mode: str, outcomes: Sequence[Outcome]) -> None:
    """Keep outcomes of one mode for `read_outcomes`."""
    np.savez_compressed(folder / f"{mode}.npz", embedding=np.stack([o.embedding for o in outcomes]))


def read_outcomes(folder: Path, mode: str) -> list[Outcome]:
    """Read what `write_outcomes` kept, in the same order."""
    with np.load(folder / f"{mode}.npz") as kept:
        return [Outcome(embedding) for embedding in kept["embedding"]]
