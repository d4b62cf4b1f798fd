"""The INT8 builds for FunASR's C++ server in another Python's ONNX Runtime, beside the version they are measured in.

    uv venv --python 3.10 .cache/ort-1.14 && uv pip install --python .cache/ort-1.14 onnxruntime==1.14.0 'numpy<2'
    python -m benchmarks.server_runtime .cache/ort-1.14/bin/python

Needs a finished build. The server has 1.14.0 on Linux, of which Python 3.11 has no wheel, and `server_int8` is measured
in 1.16.1. Each graph runs on the same inputs in both, and in this process's version; printed is the largest difference
of an output from that of 1.16.1, relative to the output's largest value.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from stages.core import graphs, layout, params, plan
from stages.core.graphs import Feeds
from stages.runtimes import older, onnxruntime_1_16_1

# Runs in any version of Python, NumPy and ONNX Runtime: nothing of ours is imported.
RUN = """
import sys, numpy, onnxruntime
graph, feeds, place = sys.argv[1:]
live = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
names = [one.name for one in live.get_outputs()]
numpy.savez(place, **dict(zip(names, live.run(names, dict(numpy.load(feeds))))))
print(onnxruntime.__version__)
"""


def run(python: str, graph: Path, feeds: Feeds, path: str = "") -> tuple[str, Feeds]:
    """Run a graph in an interpreter with modules at `path` first; return ONNX Runtime's version and the outputs."""
    with tempfile.TemporaryDirectory() as scratch:
        given, found = Path(scratch) / "feeds.npz", Path(scratch) / "found.npz"
        np.savez(given, **feeds)  # type: ignore[arg-type]  # of NumPy's types
        command = [python, "-c", RUN, str(graph), str(given), str(found)]
        done = subprocess.run(
            command, env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.PIPE, text=True, check=True
        )
        return done.stdout.strip(), dict(np.load(found))


def difference(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> float:
    """Return the largest difference of an output, relative to its largest value."""
    return max(float(np.abs(one[name] - value).max() / max(np.abs(value).max(), 1e-9)) for name, value in other.items())


def main() -> None:
    """Print a line for each graph of each build of the server's runtime."""
    [other] = sys.argv[1:]
    p = params.load()
    measured = str((older.FOLDER / onnxruntime_1_16_1.VERSION).resolve())
    for name, build in plan.derive(p).builds.items():
        if p.targets[build.target].runtime != "onnxruntime_1_16_1":
            continue
        folder = layout.ARTIFACTS / build.artifact
        graph_set = graphs.read(folder)
        for graph in graph_set.graphs.values():
            feeds = graphs.example_feeds(graph, next(iter(graph_set.cases.values())).sizes, seed=0)
            version, expected = run(sys.executable, folder / graph.file, feeds, measured)
            for python in (other, sys.executable):
                found = run(python, folder / graph.file, feeds)
                print(f"{name} {graph.file}: {found[0]} against {version}: {difference(found[1], expected):.1e}")


if __name__ == "__main__":
    main()
