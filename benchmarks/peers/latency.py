"""One artifact and the plain export in turn, in one process: run in the environment of the artifact's runtime.

`python -m benchmarks.peers.latency EXPORT MODEL CALIBRATION SECONDS` prints, as JSON, the milliseconds of each call of
both at every latency case. Their input is recorded speech, joined and cut to the length of the case: a recognizer
finds few tokens in noise, and its decoder has little to do.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.peers import calibration
from stages.core import graphs
from stages.core.graphs import Feeds, Graph, example_feeds
from stages.core.parity import Network
from stages.core.timing import time_block
from stages.runtimes import onnxruntime

WARMUP = 3
PAIRS = 1000  # at most, for a short case


def load(model: Path, graph: Graph) -> Network:
    """Load an artifact to run on one thread."""
    if model.suffix == ".xml":
        from benchmarks.peers import openvino

        return openvino.network(model)
    return onnxruntime.network(model, graph, threads=1)


def main(export: Path, model: Path, recorded: Path, seconds: float) -> None:
    """Time every latency case of the artifact beside the plain export and print the times as JSON."""
    sets = [graphs.read(folder) for folder in (export, model.parent)]  # a pruned model has smaller caches
    sides = [graph_set.graphs["model"] for graph_set in sets]
    speech = np.concatenate([feeds["speech"] for feeds in calibration.read(recorded)], axis=1)
    networks = [load(export / sides[0].file, sides[0]), load(model, sides[1])]
    times = {}
    for case, dims in sets[0].cases.items():
        recording: Feeds = {"speech": speech[:, : dims.sizes["feats_length"]]}
        fed = [example_feeds(graph, dims.sizes, seed=0) | recording for graph in sides]
        calls = [partial(network, feeds) for network, feeds in zip(networks, fed, strict=True)]
        block = time_block(calls[0], calls[1], PAIRS, WARMUP, seconds)
        times[case] = {"baseline": block.baseline.tolist(), "value": block.candidate.tolist()}
    print(json.dumps(times))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4]))
