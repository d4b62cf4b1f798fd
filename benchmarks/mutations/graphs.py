"""Mutated ONNX files through every stage that reads one, the engine's apart."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from benchmarks.mutations.forked import ACCEPTED, Tally, ending
from stages import runtimes
from stages.core import graphs, params
from stages.core.graphs import Graph
from stages.core.params import Params
from stages.export import export_variant
from stages.models import ct_transformer, paraformer
from stages.optimize import optimize
from stages.quantize import quantize
from stages.simplify import simplify

SEEDS = 3  # of each kind of damage to each model
ZOO = Path("zoo")
Bytes = Callable[[bytes, np.random.Generator], bytes]
Change = Callable[[onnx.GraphProto, np.random.Generator], None]


def _flip(data: bytes, rng: np.random.Generator) -> bytes:
    array = np.frombuffer(data, np.uint8).copy()
    array[rng.integers(len(array), size=20)] = rng.integers(256, size=20)
    return array.tobytes()


def _flip_head(data: bytes, rng: np.random.Generator) -> bytes:
    head = len(data) // 20
    return _flip(data[:head], rng) + data[head:]


def _zeros(data: bytes, rng: np.random.Generator) -> bytes:
    start = int(rng.integers(len(data) - 4096))
    return data[:start] + bytes(4096) + data[start + 4096 :]


OF_BYTES: dict[str, Bytes] = {
    "empty": lambda _data, _rng: b"",
    "text": lambda _data, rng: b"this is no graph\n" * int(rng.integers(1, 9)),
    "cut": lambda data, rng: data[: int(rng.integers(len(data)))],
    "cut at the end": lambda data, rng: data[: -int(rng.integers(1, 64))],
    "without its head": lambda data, rng: data[int(rng.integers(1, 64)) :],
    "twice": lambda data, _rng: data + data,
    "bytes at random": lambda data, rng: rng.bytes(len(data)),
    "flipped bytes": _flip,
    "flipped bytes at the start": _flip_head,
    "zeros": _zeros,
}


def _node(graph: onnx.GraphProto, rng: np.random.Generator) -> onnx.NodeProto:
    nodes: Sequence[onnx.NodeProto] = graph.node
    return nodes[int(rng.integers(len(nodes)))]


def _node_with_attribute(graph: onnx.GraphProto, rng: np.random.Generator) -> onnx.NodeProto:
    nodes: Sequence[onnx.NodeProto] = [node for node in graph.node if node.attribute]
    return nodes[int(rng.integers(len(nodes)))]


def _weight(graph: onnx.GraphProto, rng: np.random.Generator) -> onnx.TensorProto:
    weights: Sequence[onnx.TensorProto] = [tensor for tensor in graph.initializer if len(tensor.dims) > 1]
    return weights[int(rng.integers(len(weights)))]


def _dangle(graph: onnx.GraphProto, rng: np.random.Generator) -> None:
    _node(graph, rng).input[:] = ["nowhere"]


def _cycle(graph: onnx.GraphProto, rng: np.random.Generator) -> None:
    node = _node(graph, rng)
    node.input[0:1] = [node.output[0]]


def _twice(graph: onnx.GraphProto, rng: np.random.Generator) -> None:
    graph.node.append(_node(graph, rng))


def _external(location: str) -> Change:
    def change(graph: onnx.GraphProto, rng: np.random.Generator) -> None:
        tensor = _weight(graph, rng)
        for field in ("raw_data", "float_data", "int64_data", "int32_data"):
            tensor.ClearField(field)
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)

    return change


def _set(find: Callable[..., object], field: str, value: object) -> Change:
    def change(graph: onnx.GraphProto, rng: np.random.Generator) -> None:
        setattr(find(graph, rng), field, value)

    return change


def _value(kind: str) -> Callable[..., object]:
    return lambda graph, rng: getattr(graph, kind)[int(rng.integers(len(getattr(graph, kind))))]


def _nan(graph: onnx.GraphProto, rng: np.random.Generator) -> None:
    tensor = _weight(graph, rng)
    values = np.full(tuple(tensor.dims), np.nan, np.float32)
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))


def _shape(*dims: int) -> Change:
    def change(graph: onnx.GraphProto, rng: np.random.Generator) -> None:
        _weight(graph, rng).dims[:] = dims

    return change


def _remove(kind: str) -> Change:
    def change(graph: onnx.GraphProto, rng: np.random.Generator) -> None:
        items = getattr(graph, kind)
        del items[int(rng.integers(len(items)))]

    return change


def _remove_attributes(graph: onnx.GraphProto, rng: np.random.Generator) -> None:
    del _node_with_attribute(graph, rng).attribute[:]


def _spoil_attribute(graph: onnx.GraphProto, rng: np.random.Generator) -> None:
    node = _node_with_attribute(graph, rng)
    name = node.attribute[0].name
    node.attribute[0].CopyFrom(onnx.helper.make_attribute(name, "wrong"))


def _raise_rank(graph: onnx.GraphProto, rng: np.random.Generator) -> None:
    graph.output[int(rng.integers(len(graph.output)))].type.tensor_type.shape.dim.add().dim_value = 3


OF_GRAPHS: dict[str, Change] = {
    "a node that reads nothing": _dangle,
    "a cycle": _cycle,
    "a node twice": _twice,
    "without a node": _remove("node"),
    "without an initializer": _remove("initializer"),
    "without an input": _remove("input"),
    "without an output": _remove("output"),
    "without attributes": _remove_attributes,
    "an attribute of another type": _spoil_attribute,
    "an unknown operator": _set(_node, "op_type", "Quux"),
    "another operator": _set(_node, "op_type", "Softmax"),
    "an unknown domain": _set(_node, "domain", "org.example"),
    "an empty name": _set(_node, "name", ""),
    "an output renamed": _set(_value("output"), "name", "other"),
    "an input renamed": _set(_value("input"), "name", "other"),
    "an output of another rank": _raise_rank,
    "a weight of no such type": _set(_weight, "data_type", 99),
    "a weight of doubles": _set(_weight, "data_type", onnx.TensorProto.DOUBLE),
    "a weight without a name": _set(_weight, "name", ""),
    "a weight of NaN": _nan,
    "a negative shape": _shape(-3, 7),
    "another shape": _shape(3, 7),
    "an enormous shape": _shape(2**40, 2**40),
    "weights in a file that is not there": _external("absent.data"),
    "weights in a file above": _external("../../../etc/passwd"),
}


def _opset(version: int) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        model.opset_import[0].version = version

    return change


OF_MODELS: dict[str, Callable[[onnx.ModelProto], None]] = {
    "opset 0": _opset(0),
    "opset 9": _opset(9),
    "opset 999": _opset(999),
    "IR version 0": lambda model: setattr(model, "ir_version", 0),
    "IR version 999": lambda model: setattr(model, "ir_version", 999),
    "no opset": lambda model: model.ClearField("opset_import"),
    "no graph": lambda model: model.ClearField("graph"),
}


def mutations(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield every mutation of a file, by name."""
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        for name, of_bytes in OF_BYTES.items():
            yield f"{name} {seed}", of_bytes(data, rng)
        for name, change in OF_GRAPHS.items():
            model = onnx.load_from_string(data)
            change(model.graph, rng)
            yield f"{name} {seed}", model.SerializeToString()
    for name, of_model in OF_MODELS.items():
        model = onnx.load_from_string(data)
        of_model(model)
        yield name, model.SerializeToString()


def works(place: Path, graph: Graph) -> None:
    """Load and run a file without any of Kiln's own code around it.

    Raises:
        Exception: it does not load, or gives other outputs, or a number that is not finite.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(place), options, providers=["CPUExecutionProvider"])
    outputs = session.run(list(graph.outputs), graphs.example_feeds(graph, graph.usual_sizes, seed=0))
    ranks = [output.ndim for output in outputs]
    if ranks != [len(tensor.shape) for tensor in graph.outputs.values()]:
        raise ValueError(f"found outputs of {ranks} axes")


def readers(p: Params, graph: Graph) -> dict[str, Callable[[Path, Path], object]]:
    """Return what reads a graph: each takes its file, and a folder to write to."""
    feeds = [graphs.example_feeds(graph, graph.usual_sizes, seed=0)]

    def load(source: Path, _: Path) -> None:
        graph_set = graphs.read(source.parent)
        for name, network in runtimes.load(source.parent, graph_set, "onnxruntime", threads=1).items():
            network(graphs.example_feeds(graph_set.graphs[name], graph.usual_sizes, seed=0))

    return {
        "quantize int8": lambda source, out: quantize(source, out / "q.onnx", p.quantize.recipes["int8"], feeds),
        "quantize fp16": lambda source, out: quantize(source, out / "q.onnx", p.quantize.recipes["fp16"]),
        "optimize": lambda source, out: optimize(source, graph, out / "o.onnx", p.parity.tolerance),
        "simplify": lambda source, out: simplify(source, graph, out / "s.onnx", p.simplify, p.parity.tolerance),
        "benchmark's load": load,
    }


def run() -> list[Tally]:
    """Try every mutation of two miniatures' graphs on every reader."""
    p = params.load()
    tallies: dict[str, Tally] = {}
    for family, name in ((ct_transformer, "ct_transformer"), (paraformer, "paraformer")):
        with tempfile.TemporaryDirectory() as scratch:
            origin = Path(scratch) / "export"
            origin.mkdir()
            export_variant(family, ZOO / name, origin, opset=p.export.opset, tolerance=p.parity.tolerance)
            graph = graphs.read(origin).graphs["model"]
            for what, reader in readers(p, graph).items():
                tally = tallies.setdefault(what, Tally(what))
                for change, data in mutations((origin / graph.file).read_bytes()):
                    place = Path(tempfile.mkdtemp(dir=scratch))
                    shutil.copy(origin / graphs.FILE, place)
                    (place / graph.file).write_bytes(data)
                    (place / "out").mkdir()
                    sound = ending(partial(works, place / graph.file, graph)).kind == ACCEPTED
                    read = partial(reader, place / graph.file, place / "out")
                    tally.add(f"{name}, {change}", ending(read), bad=not sound)
                    shutil.rmtree(place)
    return list(tallies.values())
