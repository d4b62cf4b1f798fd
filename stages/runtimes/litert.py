"""LiteRT, formerly TensorFlow Lite, on the CPU of phones and small devices; an extra: `make .venv/extra-litert`.

onnx2tf converts by way of TensorFlow. It pins versions that clash with ours, so it and they lie in a folder of their
own, CONVERTER, and it runs in a process that sees nothing else.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

import numpy as np

from stages.core import children, graphs, layout
from stages.core.errors import UserError, from_library
from stages.core.graphs import Feeds, Graph, GraphSet
from stages.core.parity import Network
from stages.runtimes import last_of_axis

SUFFIX = ".tflite"
PACKAGE, CONVERTER = "onnx2tf", layout.CACHE / "onnx2tf"
# Why it refuses is in an exception, or in that behind its exit. Inputs stay as they are: it would move their channels.
CONVERT = """
import sys
folder, source, target, *inputs = sys.argv[1:]
sys.path.insert(0, folder)
import onnx2tf
try:
    onnx2tf.convert(source, output_folder_path=target, non_verbose=True, not_use_onnxsim=True, disable_strict_mode=True,
        copy_onnx_input_output_names_to_tflite=True, keep_shape_absolutely_input_names=inputs)
except BaseException as e:
    why = e.__context__ if isinstance(e, SystemExit) else e
    sys.exit(f"REFUSED: {type(why).__name__}: {why}")
"""
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
SAID = 300  # characters of a message, at most


def why_unavailable() -> str | None:
    """Explain why nothing here builds or runs its files, or return None."""
    if importlib.util.find_spec("ai_edge_litert") and (CONVERTER / PACKAGE).is_dir():
        return None
    return "LiteRT or its converter is not installed here; install the extra: `make .venv/extra-litert`"


def build(onnx: Path, place: Path) -> dict[str, Any]:
    """Write a graph to `place` as LiteRT's own, for any lengths, in fp32.

    Raises:
        UserError: the converter refuses the graph.
    """
    with tempfile.TemporaryDirectory(dir=place.parent) as scratch:
        model = graphs.load(onnx)
        last_of_axis.rewrite(model)
        source = Path(scratch) / "model.onnx"
        graphs.save(model, source)
        inputs = [str(value.name) for value in model.graph.inputs]
        _convert(source, Path(scratch), inputs, onnx).rename(place)
    converter = next(found.version for found in distributions(name=PACKAGE, path=[str(CONVERTER)]))
    return {"version": version("ai-edge-litert"), "converter": f"{PACKAGE} {converter}"}


def _convert(source: Path, scratch: Path, inputs: list[str], onnx: Path) -> Path:
    """Convert a graph, a copy of the one at `onnx`, in a process of its own; return the file."""
    command = [sys.executable, "-I", "-S", "-c", CONVERT, str(CONVERTER), str(source), str(scratch / "made"), *inputs]
    done = children.run(command, None, environment=os.environ | QUIET)
    if why := children.why_failed(done):
        _, refused, said = done.stderr.rpartition("REFUSED: ")
        why = " ".join((said if refused else why).replace(f"{CONVERTER.resolve()}/", "").split())[:SAID]
        raise UserError(f"{onnx}: {PACKAGE} could not convert it: {why}")
    return scratch / "made" / "model_float32.tflite"


def load(folder: Path, graph_set: GraphSet, threads: int = 1) -> dict[str, Network]:
    """Load every graph of a folder, each as a function of named inputs, of any lengths.

    Raises:
        UserError: a file is broken, or LiteRT cannot run it.
    """
    graphs_of = graph_set.graphs.items()
    return {name: _network(folder / Path(g.file).with_suffix(SUFFIX), g, threads) for name, g in graphs_of}


def _network(place: Path, graph: Graph, threads: int) -> Network:
    with from_library(f"{place}: LiteRT cannot load it"):
        live = _interpreter(place, threads)
        inputs = {tensor["name"]: tensor["index"] for tensor in live.get_input_details()}
        outputs = [tensor["index"] for tensor in live.get_output_details()]
    if set(inputs) != set(graph.inputs):
        found, wanted = (", ".join(sorted(names)) for names in (inputs, graph.inputs))
        raise UserError(f"{place}: found inputs {found}, wanted {wanted}: {PACKAGE} took operators of TensorFlow's own")
    planned: dict[str, tuple[int, ...]] = {}

    def run(feeds: Feeds) -> Feeds:
        sizes = {name: array.shape for name, array in feeds.items()}
        with from_library(f"{place}: LiteRT cannot run it"):
            if sizes != planned:  # memory is planned anew
                for name, shape in sizes.items():
                    live.resize_tensor_input(inputs[name], shape, strict=True)
                live.allocate_tensors()
                planned.update(sizes)
            for name, array in feeds.items():
                live.set_tensor(inputs[name], np.ascontiguousarray(array))
            live.invoke()
            return dict(zip(graph.outputs, map(live.get_tensor, outputs), strict=True))

    return run


def _interpreter(place: Path, threads: int) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    live = Interpreter(str(place), num_threads=threads)
    live.allocate_tensors()
    return live
