"""Which older versions of ONNX Runtime an artifact runs in as it should, found by running it in each.

`make` puts them into .cache/onnxruntime/<version>, from the locks in stages/runtimes/older_versions. 1.16.1 is that of
FunASR's server on Windows. None older than 1.15 has a wheel for Python 3.11; benchmarks/NOTES.md says what 1.14 loads.
To load is not enough: 1.15.0 loads graphs with MultiHeadAttention and computes something else.
"""

from __future__ import annotations

import itertools
import os
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from stages.core import children, graphs, layout, parity
from stages.core.errors import UserError
from stages.core.graphs import Feeds
from stages.runtimes import onnxruntime

FOLDER = layout.CACHE / "onnxruntime"
# A process of its own: each has another version, and some abort on a graph where others load it.
RUN = """
import sys, numpy as np, onnxruntime as ort
options = ort.SessionOptions()
options.log_severity_level = 4
for graph, inputs, outputs in zip(*[iter(sys.argv[1:])] * 3):
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    with np.load(inputs) as feeds:
        np.savez(outputs, **dict(zip(names, session.run(names, dict(feeds)))))
"""
TOLERANCE = 2e-4  # of every value of an output, relative to the largest: 5e-6 was seen
# Of half of the values: where INT8 rounds otherwise, a peak comes a step later. 0.0055 was seen, and 0.022 to 0.3 where
# something else was computed.
INT8_TOLERANCE = 0.01
SAID = 160  # characters of a message, at most
SECONDS = 900  # for all graphs of an artifact at the longest inputs, on a busy machine
Files = tuple[Path, Path, Path]
"""A graph, and NumPy's archives of its inputs and outputs."""


def versions() -> list[str]:
    """Return the older versions that are here, the oldest first; on a newer Python there are fewer."""
    found = [place.name for place in FOLDER.glob("[0-9]*") if (place / "onnxruntime").is_dir()]
    return sorted(found, key=lambda name: [int(part) for part in name.split(".")])


def oldest(artifact: Path) -> dict[str, Any]:
    """Run the graphs of an artifact in one version after another, the oldest first, until one gives what this one does.

    Returns:
        `oldest`: that version, or the one that everything here is measured with. `refused`: why others are not it.
    """
    refused: dict[str, str] = {}
    older = versions()
    with tempfile.TemporaryDirectory(dir=artifact.parent) as scratch, ExitStack() as stack:
        wanted = _run_here(artifact, Path(scratch), stack) if older else {}
        for name in older:
            if (why := _explain_refusal(name, wanted)) is None:
                return {"oldest": name, "refused": refused}
            refused[name] = why
    return {"oldest": version("onnxruntime"), "refused": refused}


def _run_here(artifact: Path, scratch: Path, stack: ExitStack) -> dict[Files, Feeds]:
    """Run each graph of an artifact once, with its inputs kept in `scratch`, and return the outputs."""
    graph_set, wanted = graphs.read(artifact), dict[Files, Feeds]()
    for name, network in onnxruntime.load(artifact, graph_set).items():
        graph = graph_set.graphs[name]
        whole = stack.enter_context(graphs.whole(artifact / graph.file, scratch))
        inputs, feeds = scratch / f"{name}.in.npz", parity.long_feeds(graph)
        np.savez(inputs, **feeds)  # type: ignore[arg-type]  # numpy takes the feeds for its own options
        wanted[whole, inputs, scratch / f"{name}.out.npz"] = network(feeds)
    return wanted


def _explain_refusal(name: str, wanted: Mapping[Files, Feeds]) -> str | None:
    """Return why a version does not run graphs as it should, or None; wanted: their outputs."""
    path = os.environ | {"PYTHONPATH": str(FOLDER / name)}
    places = list(itertools.chain.from_iterable(wanted))
    command = [sys.executable, "-c", RUN, *map(str, places)]
    try:
        why = children.why_failed(children.run(command, SECONDS, environment=path))
    except UserError as e:
        return str(e)
    if why is not None:
        for place in places:
            why = why.replace(str(place), place.name)
        return why[:SAID]
    for (graph, _, outputs), values in wanted.items():
        with np.load(outputs) as found:
            why = _difference(values, dict(found), is_int8=_is_int8(graph))
        if why is not None:
            return f"loads {graph.name} and gives other numbers: {why}"
    return None


def _difference(wanted: Feeds, found: Feeds, *, is_int8: bool) -> str | None:
    """Return in words how outputs differ by more than rounding gives, or None."""
    over, tolerance = (np.median, INT8_TOLERANCE) if is_int8 else (np.max, TOLERANCE)
    for name, value in wanted.items():
        if value.shape != found[name].shape:
            return f"{name} is {list(found[name].shape)}, wanted {list(value.shape)}"
        if (worst := parity.relative_difference({name: value}, {name: found[name]}, over=over)) > tolerance:
            return f"{name} differs by {worst:.2g} of its largest"
    return None


def _is_int8(graph: Path) -> bool:
    import onnx

    kinds = {initializer.data_type for initializer in graphs.load_proto(graph).graph.initializer}
    return bool(kinds & {onnx.TensorProto.INT8, onnx.TensorProto.UINT8})
