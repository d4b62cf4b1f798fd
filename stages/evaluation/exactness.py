"""Does an artifact that should compute what torch computes do so on real recordings? Without statistics: how far off.

A drift of no recording proves little of so few; that every output is as near as rounding gets, and nearer than any
decision's margin, proves what a gate on counts cannot.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.core.graphs import Feeds
from stages.core.parity import LoadedArtifact, Network, relative_difference
from stages.core.statistics import LEAST, certain
from stages.corpora.manifest import Recording
from stages.evaluation.finite import replace_infinite
from stages.models.protocols import Family
from stages.models.shared.features import keeping_features

RECORDINGS, SECONDS = 64, 240  # at most, and of audio: thousands of decisions
SCORES = ("logits", "ctc_logits")  # the output that decisions are read from, as families call it


def choose(recordings: Sequence[Recording]) -> list[int]:
    """Choose the longest recording and, in their order, as many others as RECORDINGS and SECONDS allow.

    LEAST at the least, however long: a verdict needs as many.

    Returns:
        Their places, in order.
    """
    longest = max(range(len(recordings)), key=lambda place: recordings[place].seconds)
    chosen, seconds = {longest}, recordings[longest].seconds
    for place, recording in enumerate(recordings):
        if len(chosen) < RECORDINGS and seconds + recording.seconds <= SECONDS and place not in chosen:
            chosen.add(place)
            seconds += recording.seconds
    shortest_first = sorted(range(len(recordings)), key=lambda place: recordings[place].seconds)
    others = [place for place in shortest_first if place not in chosen]
    return sorted([*chosen, *others[: max(0, LEAST - len(chosen))]])


def measure(
    family: Family[Any],
    checkpoint: Path,
    reference: LoadedArtifact,
    artifact: LoadedArtifact,
    recordings: Sequence[Recording],
) -> dict[str, dict[str, Any]]:
    """Run both on all that the family's pipeline feeds the artifact, and return two metrics for each mode.

    output_difference: the largest difference of any output, relative to its scale, and 1 at the most: also where a
    number is not finite or a shape another, as where a token more is counted. decisions_at_risk: the share of
    decisions whose margin, the lead of the best score over the next, is under twice the largest difference of the
    scores there: those that rounding could turn.
    """
    metrics = {}
    with keeping_features():
        for mode in family.MODES:
            largest, at_risk = _run_both(family, checkpoint, reference, artifact, mode, recordings)
            metrics[f"{mode}_output_difference"] = certain(largest, len(recordings))
            metrics[f"{mode}_decisions_at_risk"] = certain(at_risk, len(recordings))
    return metrics


def _run_both(
    family: Family[Any],
    checkpoint: Path,
    reference: LoadedArtifact,
    artifact: LoadedArtifact,
    mode: str,
    recordings: Sequence[Recording],
) -> tuple[float, float]:
    """Return the largest difference of any output in one mode, and the share of decisions at risk."""
    differences, at_risk = [0.0], list[NDArray[np.bool_]]()

    def compare(exact: Network, network: Network) -> Network:
        def run(feeds: Feeds) -> Feeds:
            wanted, found = exact(feeds), network(feeds)
            differences.append(min(1.0, relative_difference(wanted, found)))
            for name in wanted.keys() & SCORES:
                if wanted[name].shape == found[name].shape:
                    at_risk.append(_at_risk(wanted[name], found[name]))
            return found | replace_infinite(found)

        return run

    networks = {name: compare(reference[1][name], network) for name, network in artifact[1].items()}
    family.score(checkpoint, (artifact[0], networks), mode, recordings)
    return max(differences), float(np.concatenate(at_risk).mean()) if at_risk else 0.0


def _at_risk(wanted: NDArray[Any], found: NDArray[Any]) -> NDArray[np.bool_]:
    """Return for each decision of scores (..., classes) whether rounding could turn it: (decisions,)."""
    wanted, found = (scores.reshape(-1, scores.shape[-1]) for scores in (wanted, found))
    if wanted.shape[-1] < 2:
        return np.zeros(len(wanted), bool)
    second, best = np.partition(wanted, -2, axis=-1)[:, -2:].T
    return np.asarray(best - second < 2 * np.abs(wanted - found).max(axis=-1))
