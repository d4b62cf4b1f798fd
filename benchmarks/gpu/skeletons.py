"""Graphs of hundreds of megabytes in a few: the weights are drawn again from a seed where the graph is needed.

A skeleton is the graph with its large float weights turned into inputs; the file's metadata says how each is drawn.
So a machine that cannot be sent a gigabyte runs the same network, with random weights: its speed and how far fp16 is
from fp32 are those of any weights of that spread, its accuracy is nobody's.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.gpu.subjects import PRECISIONS
from stages.core import graphs

if TYPE_CHECKING:
    import onnx_ir as ir

DRAWN = "kiln.drawn_weights"  # the key of the metadata
SEED = 5
KEPT = 8192  # values: biases and norms stay as they are, since they decide how many tokens there are
Floats = NDArray[Any]


class Draw(NamedTuple):
    """How one tensor is drawn: a normal distribution, and `name`, which with the seed gives the numbers."""

    name: str
    shape: list[int]
    dtype: str
    mean: float
    std: float

    def numbers(self, seed: int) -> Floats:
        """Draw the tensor; the same name and seed give the same numbers, rounded to the dtype."""
        rng = np.random.default_rng([seed, zlib.crc32(self.name.encode())])
        values = rng.standard_normal(self.shape, dtype=np.float32)
        values *= np.float32(self.std)
        values += np.float32(self.mean)
        return values.astype(self.dtype, copy=False)


def strip(source: Path, place: Path) -> list[Draw]:
    """Write the skeleton of a graph, each large weight to be drawn with its own mean and spread, and return those."""
    model = graphs.load(source)
    large = {value.name: tensor.numpy() for value, tensor in _large(model)}
    draws = {name: _describe(str(name), numbers) for name, numbers in large.items()}
    _save(model, draws, place)
    return list(draws.values())


def strip_converted(source: Path, place: Path, draws: list[Draw], seed: int) -> None:
    """Write the skeleton of a graph that was made of a filled one: its weights are those, perhaps at another precision.

    draws: of the filled one, with this seed. A weight that is none of them, rounded, stays in the file.
    """
    model = graphs.load(source)
    dtypes = {tensor.numpy().dtype for _, tensor in _large(model)}
    known = {
        _digest(rounded): draw._replace(dtype=str(dtype))
        for draw in draws
        for numbers in [draw.numbers(seed)]
        for dtype in dtypes
        for rounded in [numbers.astype(dtype)]
    }
    found = {value.name: known.get(_digest(tensor.numpy())) for value, tensor in _large(model)}
    _save(model, {name: draw for name, draw in found.items() if draw is not None}, place)


def fill(skeleton: Path, place: Path, seed: int) -> None:
    """Write the whole graph of a skeleton, its weights drawn; they lie in a file beside it."""
    import onnx_ir as ir

    model = graphs.load(skeleton)
    draws = json.loads(model.metadata_props.pop(DRAWN))
    for value in [value for value in model.graph.inputs if value.name in draws]:
        draw = Draw(**draws[value.name])
        model.graph.inputs.remove(value)
        value.const_value = ir.tensor(draw.numbers(seed), name=value.name)
        model.graph.register_initializer(value)
    graphs.save(model, place, apart=True)


def fill_all(folder: Path, place: Path) -> None:
    """Write the whole graphs of the skeletons in `folder`, in both precisions, below `place`; what is there goes."""
    shutil.rmtree(place, ignore_errors=True)
    for precision in PRECISIONS:
        graph_set = graphs.read(folder / precision)
        (place / precision).mkdir(parents=True)
        for graph in graph_set.graphs.values():
            fill(folder / precision / graph.file, place / precision / graph.file, SEED)
        graphs.write(place / precision, graph_set)


def _large(model: ir.Model) -> Iterator[tuple[ir.Value, ir.TensorProtocol]]:
    """Yield the weights that are drawn: floats, more than `KEPT` of them."""
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor is not None and tensor.size > KEPT and tensor.dtype.is_floating_point():
            yield value, tensor


def _describe(name: str, numbers: Floats) -> Draw:
    return Draw(name, list(numbers.shape), str(numbers.dtype), float(numbers.mean()), float(numbers.std()))


def _digest(numbers: Floats) -> bytes:
    return hashlib.sha256(str(numbers.shape).encode() + numbers.tobytes()).digest()


def _save(model: ir.Model, draws: Mapping[Any, Draw], place: Path) -> None:
    """Write a model whose weights of these names are inputs, with how they are drawn in its metadata."""
    values = model.graph.initializers
    model.graph.inputs.extend(values.pop(name) for name in draws)
    model.metadata_props[DRAWN] = json.dumps({name: draw._asdict() for name, draw in draws.items()})
    graphs.save(model, place)
