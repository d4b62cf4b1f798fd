"""Engines of TensorRT-RTX and TensorRT for the GPU of this machine, or what keeps them from being built or run."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.gpu import networks
from benchmarks.gpu.networks import Device
from benchmarks.gpu.subjects import Subject
from stages.core import graphs, params, parity
from stages.core.errors import UserError
from stages.core.machine import gpu
from stages.core.parallel import cores
from stages.engine import build
from stages.runtimes import onnxruntime, tensorrt

Row = dict[str, Any]


def build_engines(subject: Subject, _: Device) -> Iterator[Row]:
    """Build an engine of every fp16 graph with each TensorRT, run it and compare it with fp32 on the CPU."""
    for runtime in tensorrt.MODULES:
        if (why := tensorrt.why_not_built(runtime)) is not None:
            yield {"runtime": runtime, "sha256": subject.digest, "why_not": why}
            continue
        for name in subject.graph_set.graphs:
            yield {"runtime": runtime, "sha256": subject.digest, "graph": name} | _try_engine(subject, name, runtime)


def _try_engine(subject: Subject, name: str, runtime: str) -> Row:
    """Return what building took and how far the engine is from fp32, or why it cannot be built or run."""
    graph = subject.graph_set.graphs[name]
    settings = params.load().engine.model_copy(update={"compute_capabilities": [tensorrt.CURRENT]})
    with tempfile.TemporaryDirectory() as scratch:
        place, start = Path(scratch) / f"{Path(graph.file).stem}.engine", time.perf_counter()
        built: Row = {}
        try:
            with graphs.whole(subject.folders["fp16"] / graph.file, Path(scratch)) as onnx:
                sidecar = build(graph, onnx, place, runtime, settings)
            built = {"seconds": time.perf_counter() - start, "bytes": sidecar["engine_bytes"]}
            only = subject.graph_set.model_copy(update={"graphs": {name: graph}})
            engine = tensorrt.load(Path(scratch), only, runtime)[name]
            exact = onnxruntime.network(subject.folders["fp32"] / graph.file, graph, cores())
            return built | {"differences": networks.comparable(parity.largest_differences(graph, exact, engine))}
        except UserError as e:
            return built | {"why_not": f"{gpu()}: {e}".replace(f"{scratch}/", "")}
