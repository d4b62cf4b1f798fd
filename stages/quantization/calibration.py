"""What a model's graphs are fed in use: recorded while FunASR's own code runs over calibration recordings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stages.core import graphs, progress
from stages.core.graphs import Feeds
from stages.core.parity import Network
from stages.corpora.manifest import Recording
from stages.models.protocols import Family
from stages.models.shared.features import keeping_features
from stages.runtimes import onnxruntime


def record_feeds(
    family: Family[Any], checkpoint: Path, folder: Path, recordings: Sequence[Recording], count: int
) -> dict[str, list[Feeds]]:
    """Record up to `count` inputs of each graph, spread evenly over what the family feeds it in every mode.

    folder: the model's graphs, which run on ONNX Runtime.
    """
    graph_set = graphs.read(folder)
    networks = onnxruntime.load(folder, graph_set)
    fed: dict[str, list[Feeds]] = {name: [] for name in networks}

    def recording(name: str) -> Network:
        def run(feeds: Feeds) -> Feeds:
            fed[name].append({key: np.array(value) for key, value in feeds.items()})  # FunASR may reuse its buffers
            return networks[name](feeds)

        return run

    artifact = (graph_set, {name: recording(name) for name in networks})
    with keeping_features():
        for mode in family.MODES:
            family.score(checkpoint, artifact, mode, progress.each(recordings, f"calibration, {mode}"))
    return {name: _pick_evenly(calls, count) for name, calls in fed.items()}


def _pick_evenly(items: list[Feeds], count: int) -> list[Feeds]:
    places = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [items[i] for i in places]
