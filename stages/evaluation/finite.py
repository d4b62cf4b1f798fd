"""Outputs that are NaN or infinite: noted by recording, with a number in their place so that what follows runs on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stages.core.graphs import Feeds
from stages.core.parity import LoadedArtifact, Network
from stages.corpora.manifest import Recording
from stages.models.protocols import Family
from stages.models.shared.features import keeping_features

HARMLESS = 1e-6  # not 0: FunASR takes the logarithm of a posterior


class Watched:
    """An artifact that tells whether a network of it gave a number that is not finite."""

    def __init__(self, artifact: LoadedArtifact) -> None:
        """Watch every network of the artifact."""
        graph_set, networks = artifact
        self.artifact: LoadedArtifact = graph_set, {name: self._watch(network) for name, network in networks.items()}
        self._is_finite = True

    def take(self) -> bool:
        """Return whether all outputs since the last call were finite."""
        was_finite, self._is_finite = self._is_finite, True
        return was_finite

    def _watch(self, network: Network) -> Network:
        def run(feeds: Feeds) -> Feeds:
            outputs = network(feeds)
            replaced = replace_infinite(outputs)
            self._is_finite &= not replaced
            return outputs | replaced

        return run


def replace_infinite(outputs: Feeds) -> Feeds:
    """Return those outputs that are not all finite, with a harmless number for each that is NaN or infinite."""
    wrong = [k for k, v in outputs.items() if v.dtype.kind == "f" and not np.isfinite(v).all()]
    return {k: np.nan_to_num(outputs[k], nan=HARMLESS, posinf=HARMLESS, neginf=HARMLESS) for k in wrong}


def score(
    family: Family[Any], checkpoint: Path, artifact: LoadedArtifact, recordings: Sequence[Recording]
) -> list[tuple[dict[str, Any], bool]]:
    """Return what the family's `score` gives of each recording, by mode, and whether all outputs were finite."""
    with keeping_features():
        by_mode = {mode: _score(family, checkpoint, artifact, mode, recordings) for mode in family.MODES}
    of_recordings = [dict(zip(by_mode, found, strict=True)) for found in zip(*by_mode.values(), strict=True)]
    return [
        ({mode: outcome for mode, (outcome, _) in found.items()}, all(is_finite for _, is_finite in found.values()))
        for found in of_recordings
    ]


def _score(
    family: Family[Any], checkpoint: Path, artifact: LoadedArtifact, mode: str, recordings: Sequence[Recording]
) -> list[tuple[Any, bool]]:
    watched, finite = Watched(artifact), list[bool]()

    def one_after_the_other() -> Iterator[Recording]:
        for recording in recordings:
            yield recording
            finite.append(watched.take())

    outcomes = family.score(checkpoint, watched.artifact, mode, one_after_the_other())
    return list(zip(outcomes, finite, strict=True))
