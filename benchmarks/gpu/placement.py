"""Which nodes of a graph run on the device, which on the CPU, and which keep the host busy longest."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu import networks, subjects
from benchmarks.gpu.networks import Device
from benchmarks.gpu.subjects import Subject
from stages.core import graphs
from stages.core.graphs import Feeds
from stages.runtimes.onnxruntime import Provider

RUNS = 4  # of which the last counts
SLOWEST = 3
KERNEL = "_kernel_time"
COPIES = ("MemcpyToHost", "MemcpyFromHost")
Row = dict[str, Any]


def place(subject: Subject, device: Device) -> Iterator[Row]:
    """Count each graph's nodes by where they run, at the main case, and find the operators that cost the host most."""
    case = subject.graph_set.cases[networks.main_case(subject.graph_set)]
    for precision in subjects.PRECISIONS:
        for name, graph in subject.graph_set.graphs.items():
            place = subject.folders[precision] / graph.file
            nodes = _profile(place, networks.feeds_of(graph, case, 1), device.provider)
            yield {"graph": name, "precision": precision} | _summary(nodes)


def _profile(place: Path, feeds: Feeds, provider: Provider) -> Sequence[Row]:
    """Run a graph a few times, and return what ONNX Runtime's profiler noted of each node in the last run."""
    import onnxruntime as ort

    with tempfile.TemporaryDirectory() as scratch:
        options = ort.SessionOptions()
        options.enable_profiling, options.profile_file_prefix = True, f"{scratch}/profile"
        folder = str(graphs.weights_folder(place))
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
        session = ort.InferenceSession(str(place), options, providers=[provider])
        for _ in range(RUNS):
            session.run(None, feeds)
        events = json.loads(Path(session.end_profiling()).read_text())
    nodes = [event for event in events if event.get("cat") == "Node" and event["name"].endswith(KERNEL)]
    return nodes[-len(nodes) // RUNS :]


def _summary(nodes: Sequence[Row]) -> Row:
    """Return counts of nodes by provider and of copies, and the operators with most microseconds of the host."""
    operators = Counter[str]()
    for node in nodes:
        operators[node["args"]["op_name"]] += node["dur"]
    total = sum(operators.values()) or 1
    copies = sum(node["args"]["op_name"] in COPIES for node in nodes)
    on_cpu = Counter(n["args"]["op_name"] for n in nodes if n["args"]["provider"].startswith("CPU"))
    return {
        "nodes": len(nodes),
        "on_cpu": sum(on_cpu.values()),
        "cpu_operators": ", ".join(f"{name} {count}" for name, count in on_cpu.most_common(SLOWEST)),
        "copies": copies,
        "slowest": ", ".join(f"{name} {time / total:.0%}" for name, time in operators.most_common(SLOWEST)),
        "host_ms": total / 1000,
    }
