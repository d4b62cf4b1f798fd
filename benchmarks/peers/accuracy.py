"""Accuracy of one artifact as the stage `evaluate` measures it: run in Kiln's environment and the repository's root.

`python -m benchmarks.peers.accuracy MODEL ARTIFACT [PYTHON]` prints every metric as JSON. An OpenVINO artifact
runs in a process of the interpreter PYTHON: nothing here is timed, so what it costs to ask it does not count.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import Pipe
from pathlib import Path

from stages import models
from stages.core import graphs, layout, params
from stages.core.graphs import Feeds, Graph
from stages.core.parity import Network
from stages.corpora import manifest
from stages.evaluate import evaluate
from stages.runtimes import onnxruntime


@contextmanager
def run_in_interpreter(python: str, model: Path) -> Iterator[Network]:
    """Run an OpenVINO model in another interpreter, and yield it as a function of named inputs."""
    here, there = Pipe()
    descriptor = there.fileno()
    command = [python, "-m", "benchmarks.peers.openvino", "serve", str(model), str(descriptor)]
    with subprocess.Popen(command, pass_fds=[descriptor], env=os.environ) as process:
        there.close()

        def run(feeds: Feeds) -> Feeds:
            here.send(feeds)
            outputs: Feeds = here.recv()
            return outputs

        try:
            yield run
        finally:
            here.close()
            process.wait()


@contextmanager
def open_network(model: Path, graph: Graph, python: str | None) -> Iterator[Network]:
    """Load an artifact, in `python` where that is given, and yield it as a function of named inputs."""
    if python is None:
        yield onnxruntime.network(model, graph)
    else:
        with run_in_interpreter(python, model) as network:
            yield network


def main(model: str, artifact: Path, python: str | None = None) -> None:
    """Score an artifact on the evaluation split and print its metrics as JSON."""
    p = params.load()
    family = models.load(p.models[model].family)
    graph_set = graphs.read(artifact.parent)
    recordings = manifest.read(layout.corpus(p.models[model].dataset), p.evaluate.split)
    with open_network(artifact, graph_set.graphs["model"], python) as network:
        found = evaluate(
            family,
            layout.checkpoint(model),
            recordings,
            (graph_set, {"model": network}),
            layout.reference(model),
            p.evaluate,
            processes=1,
        )
    print(json.dumps(found["metrics"]))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
