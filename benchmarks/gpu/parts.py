"""The parts of the measurement, each of one model: rows of its table. Each runs in a process of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from benchmarks.gpu import engines, networks, placement, skeletons, stages_on_device, subjects
from benchmarks.gpu.networks import Device
from benchmarks.gpu.subjects import Subject
from stages import models
from stages.commands import catalogue
from stages.core import parity
from stages.core.graphs import Case, Feeds, Graph, example_feeds
from stages.core.parallel import cores
from stages.core.parity import Network
from stages.runtimes import onnxruntime

Row = dict[str, Any]
BATCHES = (1, 8, 32)
SECONDS = 0.3  # that one case is timed for
# What torch computes in: the last has the weights in fp16 too, and what autocast leaves in fp32 is cast back.
TORCH_PRECISIONS = {"fp32": "float32", "fp16 (autocast)": "float32", "fp16": "float16"}

PLACES_TENSORS = {
    "emotion2vec"
}  # families that make each tensor where it belongs; where else is a default, they mix both


def fill(subject: Subject, _: Device) -> Iterator[Row]:
    """Draw the weights of a large model."""
    start = time.perf_counter()
    skeletons.fill_all(subjects.SKELETONS / subject.name, subjects.FILLED / subject.name)
    yield {"seconds": time.perf_counter() - start}


def compare(subject: Subject, device: Device) -> Iterator[Row]:
    """Compare each graph on the device with fp32 on the CPU: all lengths, silence, batches, chunks, the longest."""
    for name, graph in subject.graph_set.graphs.items():
        exact = _load_network(subject, "fp32", graph, onnxruntime.CPU)
        again, longest = parity.remember(exact), _longest(graph)
        expected = exact(longest)
        for precision in subjects.PRECISIONS:
            candidate = _load_network(subject, precision, graph, device.provider)
            found = parity.largest_differences(graph, again(), candidate)
            found["longest"] = parity.relative_difference(expected, candidate(longest))
            yield {"graph": name, "precision": precision, "differences": networks.comparable(found)}


def _load_network(subject: Subject, precision: str, graph: Graph, provider: onnxruntime.Provider) -> Network:
    return onnxruntime.network(subject.folders[precision] / graph.file, graph, cores(), provider=provider)


def _longest(graph: Graph) -> Feeds:
    """Draw one recording at the largest sizes that the graph was made for."""
    return example_feeds(
        graph, {name: axis.max for name, axis in graph.axes.items()} | {parity.BATCH: 1}, networks.SEED
    )


def time_graphs(subject: Subject, device: Device) -> Iterator[Row]:
    """Time every case at batch 1 and the main one at larger batches, on the device in both precisions, then the CPU."""
    for precision in subjects.PRECISIONS:
        yield from _time(subject, precision, device)
    yield from _time(subject, "fp32", networks.DEVICES["cpu"], batches=(1,))


def _time(subject: Subject, precision: str, device: Device, batches: tuple[int, ...] = BATCHES) -> Iterator[Row]:
    graph_set, before, start = subject.graph_set, networks.used_mib(device), time.perf_counter()
    sessions = networks.open_sessions(subject.folders[precision], graph_set, device.provider)
    load_seconds = time.perf_counter() - start

    def call_of(fed: Mapping[str, Feeds]) -> Callable[[], object]:
        calls = [networks.bind(sessions[name], feeds, device.memory) for name, feeds in fed.items()]
        return lambda: [call() for call in calls]

    for row in _time_calls(subject, call_of, batches):
        memory = networks.used_mib(device) - before
        yield row | {"on": device.provider[0], "precision": precision, "mib": memory, "load_s": load_seconds}


def _time_calls(
    subject: Subject, call_of: Callable[[Mapping[str, Feeds]], Callable[[], object]], batches: tuple[int, ...]
) -> Iterator[Row]:
    """Time what `call_of` makes of every graph's inputs, case by case; `per_second`: seconds of audio, or texts."""
    graph_set = subject.graph_set
    for case_name, case in networks.cases(graph_set):
        larger = case_name == networks.main_case(graph_set) and networks.is_batched(graph_set)
        for batch in batches if larger else (1,):
            fed = {name: networks.feeds_of(graph, case, batch) for name, graph in graph_set.graphs.items()}
            ms = networks.median_ms(call_of(fed), SECONDS)
            yield {"case": case_name, "batch": batch, "ms": ms, "per_second": _rate(case, batch, ms)}


def _rate(case: Case, batch: int, ms: float) -> float:
    return batch * (case.seconds or 1) / (ms / 1000)


def time_torch(subject: Subject, device: Device) -> Iterator[Row]:
    """Time FunASR's own network in torch as `time_graphs` does: fp32, cast to fp16, with fp16 weights."""
    import torch

    from zoo import replicas

    family, replica = models.load(catalogue.models()[subject.name].family), replicas.REPLICAS[subject.name]
    config = replicas.configuration(subject.name, tiny=False) | {"vocab_size": replica.vocabulary[0]}
    with torch.device(device.memory):
        model = family.build(config)
        replica.settle(model)
    default = "cpu" if catalogue.models()[subject.name].family in PLACES_TENSORS else device.memory
    with torch.device(default), torch.no_grad():
        for precision, dtype in TORCH_PRECISIONS.items():
            modules = family.export_modules(model.to(getattr(torch, dtype)))
            # Within one block of autocast each weight is cast once.
            with torch.autocast(device.memory, torch.float16, enabled=precision != "fp32"):
                rows = list(_time_calls(subject, partial(_torch_call, modules, device), BATCHES))
            yield from (row | {"on": "torch", "precision": precision} for row in rows)


def _torch_call(modules: Mapping[str, Any], device: Device, fed: Mapping[str, Feeds]) -> Callable[[], None]:
    import torch

    inputs = {
        name: [torch.from_numpy(value).to(device.memory) for value in feeds.values()] for name, feeds in fed.items()
    }

    def call() -> None:
        for name, values in inputs.items():
            modules[name](*values)
        if device.memory == "cuda":
            torch.cuda.synchronize()

    return call


PARTS: dict[str, Callable[[Subject, Device], Iterator[Row]]] = {
    "fill": fill,
    "parity": compare,
    "speed": time_graphs,
    "placement": placement.place,
    "torch": time_torch,
    "engines": engines.build_engines,
    "accuracy": stages_on_device.evaluate,
    "latency": stages_on_device.benchmark,
}
