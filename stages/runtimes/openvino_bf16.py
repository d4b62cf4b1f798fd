"""OpenVINO on a CPU that multiplies in bf16: graphs of the recipe `bf16`; the extra `make .venv/extra-openvino`.

Each value of such a graph has its type, with casts between bf16 and fp32, and OpenVINO keeps them: what counts tokens
is fp32 (stages/quantization/counting.py). Its own way from an fp32 graph, INFERENCE_PRECISION_HINT, rounds that too.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from stages.runtimes import openvino
from stages.runtimes.openvino import SUFFIX, load

__all__ = ["SUFFIX", "build", "load", "why_unavailable"]

CAPABILITY = "BF16"  # as OpenVINO lists it of a processor


def why_unavailable() -> str | None:
    """Explain why nothing here builds or runs its files, or return None."""
    if why := openvino.why_unavailable():
        return why
    from openvino import Core

    found = Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if CAPABILITY in found:
        return None
    return f"OpenVINO finds {', '.join(sorted(found))} on this processor, wanted {CAPABILITY}: AMX or AVX512-BF16"


def build(onnx: Path, place: Path) -> dict[str, Any]:
    """Write a graph to `place` as OpenVINO's own.

    Returns:
        version: OpenVINO's. precisions: how many of the layers that this processor runs compute in each.

    Raises:
        UserError: OpenVINO refuses the graph, or cannot compile it.
    """
    sidecar = openvino.build(onnx, place)
    layers = [layer.get_rt_info() for layer in openvino.compile_for_cpu(place).get_runtime_model().get_ops()]
    computing = [layer for layer in layers if layer["layerType"].astype(str) != "Const"]
    precisions = Counter(layer["runtimePrecision"].astype(str) for layer in computing)
    return sidecar | {"precisions": dict(sorted(precisions.items()))}
