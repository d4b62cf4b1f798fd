"""What runs an artifact: the one place that maps a target's runtime to its code."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from stages.core.files import read_json
from stages.core.graphs import GraphSet
from stages.core.params.section import Runtime
from stages.core.parity import Network
from stages.runtimes import (
    litert,
    onnxruntime,
    onnxruntime_1_16_1,
    onnxruntime_cuda,
    openvino,
    openvino_bf16,
    ort_format,
    tensorrt,
    torchscript,
)

RECORDS = ("engine.json", "trace.json")  # in which a stage says why it made nothing


@dataclass(frozen=True)
class Runner:
    """What runs a runtime's artifacts: why it cannot here, what loads a folder on so many threads, and its library."""

    why_unavailable: Callable[[], str | None]
    load: Callable[[Path, GraphSet, int], dict[str, Network]]
    import_library: Callable[[], object]


def _importer(library: str) -> Callable[[], object]:
    return partial(importlib.import_module, library)


def _tensorrt(runtime: str) -> Runner:
    def load(folder: Path, graph_set: GraphSet, _threads: int) -> dict[str, Network]:
        return tensorrt.load(folder, graph_set, runtime)

    return Runner(partial(tensorrt.why_unavailable, runtime), load, _importer(tensorrt.MODULES[runtime]))


RUNNERS: Mapping[Runtime, Runner] = {
    "onnxruntime": Runner(lambda: None, onnxruntime.load, _importer("onnxruntime")),
    "onnxruntime_1_16_1": Runner(onnxruntime_1_16_1.why_unavailable, onnxruntime_1_16_1.load, _importer("onnxruntime")),
    "onnxruntime_cuda": Runner(
        onnxruntime_cuda.why_unavailable, onnxruntime_cuda.load, onnxruntime_cuda.import_library
    ),
    "ort_format": Runner(ort_format.why_unavailable, ort_format.load, _importer("onnxruntime")),
    "litert": Runner(litert.why_unavailable, litert.load, _importer("ai_edge_litert.interpreter")),
    "openvino": Runner(openvino.why_unavailable, openvino.load, _importer("openvino")),
    "openvino_bf16": Runner(openvino_bf16.why_unavailable, openvino_bf16.load, _importer("openvino")),
    "torchscript": Runner(torchscript.why_unavailable, torchscript.load, _importer("torch")),
    "tensorrt_rtx": _tensorrt("tensorrt_rtx"),
    "tensorrt": _tensorrt("tensorrt"),
}


def why_unavailable(runtime: Runtime, *artifacts: Path) -> str | None:
    """Explain why nothing on this machine runs artifacts of this runtime, or why one was not made, or return None."""
    return RUNNERS[runtime].why_unavailable() or next(filter(None, map(_why_not_made, artifacts)), None)


def _why_not_made(artifact: Path) -> str | None:
    records: list[dict[str, Any]] = [read_json(artifact / name) for name in RECORDS if (artifact / name).is_file()]
    return next((record["unavailable"] for record in records), None)


def enter(runtime: Runtime, stage: str, argv: Sequence[str]) -> None:
    """Start a stage again where its target's runtime cannot be in this process; else return."""
    if runtime == "onnxruntime_1_16_1" and why_unavailable(runtime) is None:
        onnxruntime_1_16_1.enter(stage, argv)


def warm(runtime: Runtime) -> None:
    """Import the runtime's library, so that a measurement that follows does not include it."""
    RUNNERS[runtime].import_library()


def load(folder: Path, graph_set: GraphSet, runtime: Runtime, threads: int) -> dict[str, Network]:
    """Load every graph of an artifact as a function of named inputs; threads: of the CPU.

    Raises:
        UserError: a file is broken, or built for another version or machine.
    """
    return RUNNERS[runtime].load(folder, graph_set, threads)
