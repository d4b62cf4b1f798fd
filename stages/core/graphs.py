"""A model's ONNX graphs as a set: names, shapes, states and sizes that every stage after export reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from stages.core.errors import UserError
from stages.core.files import read_json, sha256, write_json

if TYPE_CHECKING:
    import onnx_ir as ir

FILE = "graphs.json"
EXTERNAL_BYTES = 2**27  # from here on, weights are mapped from a file, not read and copied
LARGE_TENSOR = 2**16
Feeds = dict[str, NDArray[np.generic]]


class Tensor(BaseModel):
    """dtype as numpy names it; a dimension is a size or the name of an axis.

    An input holds any real numbers unless one of these says otherwise. length_of: every value is the
    size of that axis, less where a row of a batch is padded. below: whole numbers from 0 up to it.
    fill: this value everywhere.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    dtype: str
    shape: list[int | str]
    length_of: str | None = None
    below: int | None = None
    fill: float | None = None


class Axis(BaseModel):
    """Sizes of a dynamic axis: the range a graph accepts and the size an engine is tuned for."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    min: int
    opt: int
    max: int


class Graph(BaseModel):
    """One ONNX file. `states` maps an input to the output that is fed back into it, chunk by chunk.

    `axes` are the dynamic axes of the inputs. An output may have others, which follow from the inputs.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    file: str
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    states: dict[str, str]
    axes: dict[str, Axis]


class Case(BaseModel):
    """What latency is measured at: the size of every axis, and the seconds of audio that this stands for."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    sizes: dict[str, int]
    seconds: float | None


class GraphSet(BaseModel):
    """The graphs of one variant of a model, and its latency cases, the largest last."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    graphs: dict[str, Graph]
    cases: dict[str, Case]


def read(folder: Path) -> GraphSet:
    """The graph set that a stage left in `folder`.

    Raises:
        UserError: it is missing or not as this version of Kiln writes it.
    """
    try:
        return GraphSet.model_validate(read_json(folder / FILE))
    except ValidationError as e:
        raise UserError(
            f"{folder / FILE} is not a graph set ({e.error_count()} problems); run `dvc repro` again"
        ) from e


def write(folder: Path, graph_set: GraphSet) -> None:
    """Write the graph set beside its ONNX files."""
    write_json(folder / FILE, graph_set.model_dump())


def save(model: ir.Model, place: Path) -> None:
    """Write a model; of over 128 MiB of weights, the large ones into a file beside it.

    ONNX Runtime and `onnx_ir.load` map that one; what lies in the graph's own they read and copy.
    """
    import onnx_ir as ir

    weights = sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)
    if weights > EXTERNAL_BYTES:
        ir.save(model, place, external_data=f"{place.name}.data", size_threshold_bytes=LARGE_TENSOR)
    else:  # what lay apart is taken in, or the graph would go on pointing into the file of the one it was made of
        ir.save(ir.external_data.load_to_model(model.clone()), place)


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a folder that is not a record about it, by name."""
    return {p.name: sha256(p) for p in sorted(folder.iterdir()) if p.suffix != ".json"}


def size(folder: Path) -> int:
    """Bytes of every file of a folder that is not a record about it."""
    return sum(p.stat().st_size for p in folder.iterdir() if p.suffix != ".json")


def example_feeds(graph: Graph, sizes: Mapping[str, int], seed: int) -> Feeds:
    """Inputs in the shapes that the axis `sizes` give: random, states zero, lengths full.

    With a `batch` axis, rows after the first are shorter, each by a third of what is left, where the
    graph takes lengths.
    """
    rng = np.random.default_rng(seed)
    return {name: _example(graph, name, tensor, sizes, rng) for name, tensor in graph.inputs.items()}


def _example(
    graph: Graph, name: str, tensor: Tensor, sizes: Mapping[str, int], rng: np.random.Generator
) -> NDArray[np.generic]:
    shape = [d if isinstance(d, int) else sizes[d] for d in tensor.shape]
    if tensor.length_of is not None:
        least = graph.axes[tensor.length_of].min
        shares = (2 / 3) ** np.arange(shape[0])
        lengths = np.maximum(least, np.floor(sizes[tensor.length_of] * shares + 1e-9))
        return np.broadcast_to(lengths, shape[::-1]).T.astype(tensor.dtype)
    if tensor.below is not None:
        return rng.integers(tensor.below, size=shape).astype(tensor.dtype)
    if tensor.fill is not None or name in graph.states:
        return np.full(shape, tensor.fill or 0).astype(tensor.dtype)
    return rng.standard_normal(shape).astype(tensor.dtype)
