"""OpenVINO on the CPU, in fp32 or with the INT8 of a static recipe; an extra: `make .venv/extra-openvino`."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from stages.core.errors import from_library
from stages.core.graphs import Feeds, Graph, GraphSet
from stages.core.parity import Network

SUFFIX = ".xml"  # beside which the weights lie, as .bin


def why_unavailable() -> str | None:
    """Explain why nothing here builds or runs its files, or return None."""
    found = importlib.util.find_spec("openvino")
    return None if found else "openvino is not installed here; install the extra: `make .venv/extra-openvino`"


def build(onnx: Path, place: Path) -> dict[str, Any]:
    """Write a graph to `place` as OpenVINO's own, its weights unrounded.

    Raises:
        UserError: OpenVINO refuses the graph.
    """
    import openvino

    with from_library(f"{onnx}: OpenVINO {openvino.__version__} could not convert it"):
        openvino.save_model(openvino.convert_model(str(onnx)), str(place), compress_to_fp16=False)
    return {"version": openvino.__version__}


def load(folder: Path, graph_set: GraphSet, threads: int = 1) -> dict[str, Network]:
    """Load every graph of a folder, each as a function of named inputs.

    Raises:
        UserError: a file is broken, or OpenVINO cannot compile it.
    """

    def network(path: Path, graph: Graph) -> Network:
        request = compiled(path, threads).create_infer_request()

        def run(feeds: Feeds) -> Feeds:
            with from_library(f"{path}: OpenVINO cannot run it"):
                request.infer(feeds)
                return {name: np.array(request.get_tensor(name).data) for name in graph.outputs}

        return run

    return {name: network(folder / Path(g.file).with_suffix(SUFFIX), g) for name, g in graph_set.graphs.items()}


def compiled(path: Path, threads: int = 1) -> Any:
    """Compile a file for this processor, each value in the type that the file says.

    fp32 stays fp32: where a processor has bf16, OpenVINO would run all in it, and bf16 cannot count tokens.

    Raises:
        UserError: the file is broken, or OpenVINO cannot compile it.
    """
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    with from_library(f"{path}: OpenVINO {openvino.__version__} cannot load it"):
        return openvino.Core().compile_model(str(path), "CPU", settings)
