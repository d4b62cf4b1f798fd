"""What runs an artifact: the one place that maps a target's runtime to its code."""

from __future__ import annotations

import importlib
from pathlib import Path

from stages.core.graphs import GraphSet
from stages.core.params.section import Runtime
from stages.core.parity import Network
from stages.runtimes import onnxruntime, onnxruntime_cuda, tensorrt


def why_unavailable(runtime: Runtime) -> str | None:
    """Explain why nothing on this machine runs artifacts of this runtime, or return None."""
    if runtime == "onnxruntime":
        return None
    return onnxruntime_cuda.why_unavailable() if runtime == "onnxruntime_cuda" else tensorrt.why_unavailable(runtime)


def warm(runtime: Runtime) -> None:
    """Import the runtime's library, so that a measurement that follows does not include it."""
    if runtime == "onnxruntime_cuda":
        onnxruntime_cuda.import_library()
    else:
        importlib.import_module(tensorrt.MODULES.get(runtime, runtime))


def load(folder: Path, graph_set: GraphSet, runtime: Runtime, threads: int) -> dict[str, Network]:
    """Load every graph of an artifact as a function of named inputs; threads: of the CPU.

    Raises:
        UserError: a file is broken, or built for another version or machine.
    """
    if runtime == "onnxruntime":
        return onnxruntime.load(folder, graph_set, threads)
    if runtime == "onnxruntime_cuda":
        return onnxruntime_cuda.load(folder, graph_set, threads)
    return tensorrt.load(folder, graph_set, runtime)
