"""OpenVINO on the CPU, in fp32 or with the INT8 of a static recipe; an extra: `make .venv/extra-openvino`."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.core.errors import from_library
from stages.core.graphs import Feeds, Graph, GraphSet
from stages.core.parity import Network

SUFFIX = ".xml"  # beside which the weights lie, as .bin
POOLING = "opset16"  # whose AvgPool has dilations, as what the conversion makes


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
        model = openvino.convert_model(str(onnx))
        _pad_last_windows(model)
        openvino.save_model(model, str(place), compress_to_fp16=False)
    return {"version": openvino.__version__}


def _pad_last_windows(model: Any) -> None:
    """Let averages whose last window may be cut have it padded, in place: what is padded is in no mean.

    Of an input shorter than a window, OpenVINO makes nothing on one thread and raises on several.
    """
    from openvino.utils.node_factory import NodeFactory

    for node in model.get_ops():
        if node.get_type_name() == "AvgPool" and _may_be_cut(windows := node.get_attributes()):
            windows |= {"pads_end": [stride - 1 for stride in windows["strides"]], "rounding_type": "floor"}
            padded = NodeFactory(POOLING).create("AvgPool", [node.input_value(0)], windows)
            padded.set_friendly_name(node.get_friendly_name())
            node.output(0).replace(padded.output(0))


def _may_be_cut(windows: Mapping[str, Any]) -> bool:
    """Tell whether the last of a pooling's windows may be cut, and padding at the end would do the same."""
    is_padded = any([*windows["pads_begin"], *windows["pads_end"]]) or windows["auto_pad"] != "explicit"
    overlap = all(stride <= size for stride, size in zip(windows["strides"], windows["kernel"], strict=True))
    return windows["rounding_type"] != "floor" and windows["exclude-pad"] and overlap and not is_padded


def load(folder: Path, graph_set: GraphSet, threads: int = 1) -> dict[str, Network]:
    """Load every graph of a folder, each as a function of named inputs.

    Raises:
        UserError: a file is broken, or OpenVINO cannot compile it.
    """

    def network(path: Path, graph: Graph) -> Network:
        request = compile_for_cpu(path, threads).create_infer_request()

        def run(feeds: Feeds) -> Feeds:
            with from_library(f"{path}: OpenVINO cannot run it"):
                found = request.infer(feeds, share_inputs=True)  # copies take as long as FSMN-VAD's chunk of 200 ms
                return {name: found[name] for name in graph.outputs}

        return run

    return {name: network(folder / Path(g.file).with_suffix(SUFFIX), g) for name, g in graph_set.graphs.items()}


def compile_for_cpu(path: Path, threads: int = 1) -> Any:
    """Compile a file for this processor, each value in the type that the file says.

    fp32 stays fp32: where a processor has bf16, OpenVINO would run all in it, and bf16 cannot count tokens.

    Raises:
        UserError: the file is broken, or OpenVINO cannot compile it.
    """
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    with from_library(f"{path}: OpenVINO {openvino.__version__} cannot load it"):
        return openvino.Core().compile_model(str(path), "CPU", settings)
