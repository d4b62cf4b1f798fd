"""Sessions on a device, and calls whose inputs lie there already and whose outputs stay there."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stages.core.graphs import Case, Feeds, Graph, GraphSet, example_feeds
from stages.core.parallel import cores
from stages.core.parity import BATCH
from stages.runtimes import onnxruntime, onnxruntime_cuda
from stages.runtimes.onnxruntime import Provider

LONG_AXES = ("feats_length", "samples")  # which grow with the audio
SEED = 5
WARMUP = 3


class Device(NamedTuple):
    """Where is measured: ONNX Runtime's provider, and where torch and IO bindings put tensors."""

    provider: Provider
    memory: str


DEVICES = {"cuda": Device(onnxruntime_cuda.PROVIDER, "cuda"), "cpu": Device(onnxruntime.CPU, "cpu")}


def used_mib(device: Device) -> float:
    """Return the MiB of the device's memory that are in use, by anybody; 0 of the CPU's, which is not counted."""
    import torch

    if device.memory == "cpu":
        return 0.0
    free, total = torch.cuda.mem_get_info()
    return (total - free) / 2**20


def cases(graph_set: GraphSet) -> Iterator[tuple[str, Case]]:
    """Yield every latency case, and the longest audio that the graphs were made for."""
    yield from graph_set.cases.items()
    last = list(graph_set.cases.values())[-1]
    largest = {name: axis.max for graph in graph_set.graphs.values() for name, axis in graph.axes.items()}
    grown = [name for name in LONG_AXES if name in last.sizes and largest[name] > last.sizes[name]]
    if grown and last.seconds and last.seconds >= 3:
        seconds = last.seconds * largest[grown[0]] / last.sizes[grown[0]]
        yield f"{seconds:.0f}s", Case(sizes=last.sizes | {name: largest[name] for name in grown}, seconds=seconds)


def main_case(graph_set: GraphSet) -> str:
    """Name the largest case of at most ten seconds of audio, or of text."""
    return [name for name, case in graph_set.cases.items() if (case.seconds or 0) <= 10][-1]


def is_batched(graph_set: GraphSet) -> bool:
    """Tell whether the graphs take several recordings at once."""
    return any(BATCH in graph.axes for graph in graph_set.graphs.values())


def feeds_of(graph: Graph, case: Case, batch: int) -> Feeds:
    """Draw a graph's inputs at a case's sizes, the same recording `batch` times: all of one length."""
    feeds = example_feeds(graph, case.sizes, SEED)
    for name, tensor in graph.inputs.items():
        if BATCH in tensor.shape:
            feeds[name] = np.repeat(feeds[name], batch, axis=tensor.shape.index(BATCH))
    return feeds


def open_sessions(folder: Path, graph_set: GraphSet, provider: Provider) -> dict[str, Any]:
    """Open a session of every graph, with all cores for what stays on the CPU."""
    return {
        name: onnxruntime.session(folder / graph.file, cores(), provider=provider)
        for name, graph in graph_set.graphs.items()
    }


def bind(session: Any, feeds: Feeds, memory: str) -> Callable[[], None]:
    """Return a call that runs a session on inputs in the device's memory and leaves the outputs there."""
    import onnxruntime as ort

    binding = session.io_binding()
    for name, value in feeds.items():
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(value, memory, 0))
    for output in session.get_outputs():
        binding.bind_output(output.name, memory)

    def call() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return call


def comparable(differences: Mapping[str, float]) -> dict[str, float | None]:
    """Return the differences, with None where shapes differ or a number is not finite: JSON has no infinity."""
    return {name: value if math.isfinite(value) else None for name, value in differences.items()}


def median_ms(call: Callable[[], object], seconds: float) -> float:
    """Return the median milliseconds of a call, repeated for as many seconds, three times at least, when warm."""
    for _ in range(WARMUP):
        call()
    times: list[float] = []
    ends = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < ends:
        start = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)
