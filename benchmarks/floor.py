"""The least time that a graph's work can take on one thread of this machine, and how near to it a run comes.

    python -m benchmarks.floor artifacts/paraformer/dense/int8 artifacts/paraformer/pruned/int8

For every latency case of an artifact: products with weights at the best rate that one product alone reaches here, of
all shapes of the graph; products of two activations, which attention is made of, at the best fp32 rate; all else at
one read and one write of memory; padding counts. Prints these, their sum, the measured time and the share of the floor
in it: that of a small graph, whose activations stay in a cache, can be above 1.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper
from rich.console import Console
from rich.table import Table

from benchmarks.scale_tables import Row
from stages.core import graphs
from stages.core.files import write_json
from stages.core.graphs import Feeds
from stages.core.timing import time_block
from stages.runtimes.onnxruntime import session

INTEGER = {"DynamicQuantizeMatMul", "MatMulIntegerToFloat", "QLinearConv", "ConvInteger", "DynamicQuantizeLSTM"}
PRODUCTS = {"MatMul", "FusedMatMul", "Gemm", "DynamicQuantizeMatMul", "MatMulIntegerToFloat"}
CONVOLUTIONS = {"Conv", "FusedConv", "QLinearConv", "ConvInteger"}
ATTENTION = {"MultiHeadAttention", "Attention"}
RECURRENCES = {"LSTM": 4, "DynamicQuantizeLSTM": 4, "GRU": 3, "RNN": 1}  # and their gates
COPIED = 64 * 2**20  # elements of float32, far beyond any cache
SECONDS = 0.3  # in which a whole run, or a copy, is repeated
PRODUCT_SECONDS = 0.1  # in which one product is
MANY = 10_000  # pairs of calls, more than the seconds allow
SHAPES = 8  # of which rates are measured: those with the most work

Shape = tuple[int, int, int]
"""Rows, inner dimension and columns of a product."""


@dataclass(frozen=True)
class Node:
    """The work of one node in one run: a product with a shape, or so many bytes moved.

    kind: `int8` or `fp32` with weights, `attention` of two activations, or `rest`.
    """

    kind: str
    shape: Shape = (0, 0, 0)
    bytes: int = 0

    @property
    def products(self) -> int:
        """Return the number of multiply-accumulates."""
        return math.prod(self.shape)


def work(path: Path, feeds: Feeds) -> list[Node]:
    """Run a graph once with ONNX Runtime's profiler, and return the work of each node that ran."""
    with tempfile.TemporaryDirectory() as scratch:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.enable_profiling, options.profile_file_prefix = True, f"{scratch}/profile"
        weights = str(graphs.weights_folder(path))
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", weights)
        profiled = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        profiled.run(None, feeds)
        events = json.loads(Path(profiled.end_profiling()).read_text())
    ran = [event["args"] for event in events if event["cat"] == "Node" and event["name"].endswith("_kernel_time")]
    return [node for args in ran for node in _nodes(args)]


def _nodes(args: dict[str, Any]) -> Iterator[Node]:
    """Give the products of a node, or what it moves. The profiler leaves out weights that were packed."""
    name = args["op_name"]
    inputs, outputs = ([shape for one in args[key] for shape in one.values()] for key in IO)
    kind = "int8" if name in INTEGER else "fp32"
    weights = [shape for shape in inputs[1:] if len(shape) >= 2]
    if name in CONVOLUTIONS and weights and weights[-1][1] > 1:  # a depthwise one is bound by memory
        columns = outputs[0][1]
        yield Node(kind, (math.prod(outputs[0]) // columns, math.prod(weights[-1][1:]), columns))
    elif name in PRODUCTS:
        rows, columns = math.prod(outputs[0][:-1]), outputs[0][-1]
        inner = math.prod(inputs[0]) * columns // math.prod(outputs[0])
        two = int(args["parameter_size"]) == 0 and len(weights) > 0 and kind == "fp32"
        yield Node("attention" if two else kind, (rows, inner, columns))
    elif name in ATTENTION:
        (batch, queries, width), keys = inputs[0], inputs[1][1]
        yield Node("attention", (batch * queries, width, keys))
        yield Node("attention", (batch * queries, keys, width))
    elif name in RECURRENCES:
        (steps, directions, batch, hidden), size = outputs[0], inputs[0][-1]
        yield Node(kind, (steps * batch * directions, size + hidden, RECURRENCES[name] * hidden))
    else:
        moved = {part: int(args[f"{part}_size"]) for part in ("activation", "parameter", "output")}
        if name == "Gather":  # of a table it reads the rows that it gives
            moved["parameter"] = min(moved["parameter"], moved["output"])
        yield Node("rest", bytes=sum(moved.values()))


IO = ("input_type_shape", "output_type_shape")


def rate(kind: str, shapes: Sequence[Shape]) -> float:
    """Measure multiply-accumulates a second of products alone, one ONNX graph each; return the best of the shapes."""
    return max(1e3 * math.prod(shape) / median_ms(_product(kind, shape), PRODUCT_SECONDS) for shape in shapes)


def _product(kind: str, shape: Shape) -> Callable[[], object]:
    rows, inner, columns = shape
    rng = np.random.default_rng(0)
    x = rng.standard_normal((rows, inner), np.float32)
    weight = rng.integers(-127, 127, (inner, columns)).astype(np.int8 if kind == "int8" else np.float32)
    tensors = {"w": weight}
    domain, op = "", "MatMul"
    if kind == "int8":
        domain, op = "com.microsoft", "DynamicQuantizeMatMul"
        tensors |= {"scale": np.full(columns, 0.01, np.float32), "zero": np.zeros(columns, np.int8)}
    graph = helper.make_graph(
        [helper.make_node(op, ["x", *tensors], ["y"], domain=domain)],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (rows, columns))],
        [onnx.numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    live = session(model.SerializeToString())
    return lambda: live.run(None, {"x": x})


def median_ms(call: Callable[[], object], seconds: float) -> float:
    """Return the median milliseconds of a call, repeated for as many seconds, without waits for a core."""
    block = time_block(call, call, pairs=MANY, warmup=2, seconds=seconds)
    return float(np.median([block.baseline, block.candidate]))


def bandwidth() -> float:
    """Measure the bytes a second that one thread reads and writes, together, in memory."""
    source, target = np.ones(COPIED, np.float32), np.zeros(COPIED, np.float32)
    return 1e3 * (source.nbytes + target.nbytes) / median_ms(lambda: np.copyto(target, source), SECONDS)


def rates(nodes: Sequence[Node]) -> dict[str, float]:
    """Measure the rate of each kind of work that is there: multiply-accumulates, or bytes, a second."""
    found = {"rest": bandwidth()}
    for kind in {node.kind for node in nodes} - {"rest"}:
        shapes = sorted({node.shape for node in nodes if node.kind == kind}, key=math.prod)[-SHAPES:]
        found[kind] = rate(kind, shapes)
    return found


def floor(nodes: Sequence[Node], per_second: dict[str, float]) -> dict[str, float]:
    """Return the least milliseconds of each kind of work."""
    kinds = dict.fromkeys(["int8", "fp32", "attention", "rest"], 0.0)
    for node in nodes:
        kinds[node.kind] += 1e3 * (node.products or node.bytes) / per_second[node.kind]
    return kinds


def measure(folder: Path) -> Iterator[Row]:
    """Measure every latency case of the artifact in a folder."""
    graph_set = graphs.read(folder)
    paths = {key: folder / graph.file for key, graph in graph_set.graphs.items()}
    live = {key: session(path) for key, path in paths.items()}
    for name, case in graph_set.cases.items():
        feeds = {key: graphs.example_feeds(graph, case.sizes, 0) for key, graph in graph_set.graphs.items()}
        nodes = [node for key, path in paths.items() for node in work(path, feeds[key])]
        taken = median_ms(lambda: [live[key].run(None, given) for key, given in feeds.items()], SECONDS)  # noqa: B023
        yield Row(name, floor(nodes, rates(nodes)), taken)


def main(argv: Sequence[str]) -> None:
    """Print the table of the artifacts in the folders."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="+", type=Path, help="of an artifact: graphs for ONNX Runtime")
    parser.add_argument("--json", type=Path, metavar="PLACE", help="write the rows of each folder here too")
    options, found = parser.parse_args(argv), dict[str, list[Row]]()
    columns = ("artifact", "case", "INT8", "fp32", "attention", "rest", "floor", "p50", "share")
    table = Table(*columns, title="milliseconds on one thread")
    for folder in options.folder:
        found[str(folder)] = list(measure(folder))
        for row in found[str(folder)]:
            times = (f"{ms:.1f}" for ms in (*row.least.values(), row.floor, row.measured))
            table.add_row("/".join(folder.parts[-3:]), row.case, *times, f"{row.share:.2f}")
    Console(width=120).print(table)
    if options.json:
        write_json(options.json, {folder: [row._asdict() for row in rows] for folder, rows in found.items()})


if __name__ == "__main__":
    main(sys.argv[1:])
