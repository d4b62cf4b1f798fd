"""Requests of unequal lengths as one batch of a graph, and its outputs as one part for each request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.core.graphs import Feeds, Graph
from stages.core.parity import BATCH


def is_batched(graph: Graph) -> bool:
    """Tell whether every input and output of a graph has rows of a batch first."""
    return all(tensor.shape[:1] == [BATCH] for tensor in (*graph.inputs.values(), *graph.outputs.values()))


def can_pad(graph: Graph, name: str) -> bool:
    """Tell whether an input's rows may be padded: where the graph is told the length of each along every other axis."""
    told = {tensor.length_of for tensor in graph.inputs.values()}
    sizes = {size for size in graph.inputs[name].shape[1:] if isinstance(size, str)}
    return bool(sizes) and sizes <= told


def join(graph: Graph, requests: Sequence[Feeds]) -> Feeds:
    """Stack the rows of requests, each padded to the longest; the graph's lengths say how much of a row counts."""
    return {name: stack([feeds[name] for feeds in requests], tensor.fill or 0) for name, tensor in graph.inputs.items()}


def stack(arrays: Sequence[NDArray[Any]], fill: float = 0) -> NDArray[Any]:
    """Put rows of arrays below each other, each padded to the largest size along every axis."""
    sizes = np.max([array.shape[1:] for array in arrays], axis=0)
    padding = [[(0, 0), *((0, int(s - n)) for n, s in zip(a.shape[1:], sizes, strict=True))] for a in arrays]
    return np.concatenate([np.pad(a, p, constant_values=fill) for a, p in zip(arrays, padding, strict=True)])


def split(outputs: Feeds, rows: Sequence[int]) -> list[Feeds]:
    """Give each request its rows."""
    ends = np.cumsum(rows)
    return [
        {name: array[end - count : end] for name, array in outputs.items()}
        for end, count in zip(ends, rows, strict=True)
    ]
