"""A model's ONNX graphs as a set: names, shapes, states and sizes that every stage after export reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from stages.core.errors import UserError
from stages.core.files import read_json, sha256, write_json

FILE = "graphs.json"
Feeds = dict[str, NDArray[np.generic]]


class Tensor(BaseModel):
    """dtype as numpy names it; a dimension is a size or the name of an axis."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    dtype: str
    shape: list[int | str]


class Axis(BaseModel):
    """Sizes of a dynamic axis: the range a graph accepts and the size an engine is tuned for."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    min: int
    opt: int
    max: int


class Graph(BaseModel):
    """One ONNX file. `states` maps an input to the output that is fed back into it, chunk by chunk."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    file: str
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    states: dict[str, str]
    axes: dict[str, Axis]


class GraphSet(BaseModel):
    """The graphs of one variant of a model, and the axis sizes that latency is measured at."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    graphs: dict[str, Graph]
    cases: dict[str, dict[str, int]]


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


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a folder that is not a record about it, by name."""
    return {p.name: sha256(p) for p in sorted(folder.iterdir()) if p.suffix != ".json"}


def size(folder: Path) -> int:
    """Bytes of every file of a folder that is not a record about it."""
    return sum(p.stat().st_size for p in folder.iterdir() if p.suffix != ".json")


def example_feeds(graph: Graph, sizes: dict[str, int], seed: int) -> Feeds:
    """Normally distributed inputs and zero states, in the shapes that the axis `sizes` give."""
    rng = np.random.default_rng(seed)
    feeds: Feeds = {}
    for name, tensor in graph.inputs.items():
        shape = [d if isinstance(d, int) else sizes[d] for d in tensor.shape]
        is_state = name in graph.states
        feeds[name] = (np.zeros(shape) if is_state else rng.standard_normal(shape)).astype(tensor.dtype)
    return feeds
