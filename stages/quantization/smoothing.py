"""What is done to a graph before ONNX Runtime quantizes it: outliers move into weights, tables become INT8."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.core import graphs, progress
from stages.core.errors import from_library
from stages.core.graphs import Feeds
from stages.core.params.recipes import DynamicRecipe, StaticRecipe


def smooth(source: Path, scratch: Path, recipe: DynamicRecipe | StaticRecipe, feeds: Sequence[Feeds]) -> Path:
    """Return a copy of the graph, with the outliers of its activations moved into weights if the recipe says so.

    A copy, because the libraries want all weights beside it, and put files of their own there.
    """
    from stages.rewrites import smooth as smoothquant

    if recipe.smooth is None:
        return graphs.copy(source, scratch)
    model, shared = graphs.load(source), graphs.weights_folder(source)
    if not (names := smoothquant.readers(model)):
        return graphs.copy(source, scratch)
    if not feeds:
        raise ValueError(f"{source}: smoothing needs what the graph is fed")
    observed = model.clone()
    observed.graph.outputs.extend(value for node in observed.graph for value in node.outputs if value.name in names)
    graphs.save(observed, scratch / f"observed.{source.name}", shared)
    largest = _largest_values(scratch / f"observed.{source.name}", shared, list(names), feeds)
    graphs.save(smoothquant.rewrite(model, largest, recipe.smooth)[0], scratch / source.name)
    return scratch / source.name


def quantize_tables(source: Path, scratch: Path, recipe: DynamicRecipe | StaticRecipe) -> Path:
    """Return the graph with its large tables of embeddings in INT8, if the recipe says so and it has any.

    Before the rest: the library loads all that a graph holds, several times over.
    """
    from stages.rewrites import embedding

    if recipe.embedding_rows is None:
        return source
    model, count = embedding.rewrite(graphs.load(source), recipe.embedding_rows, recipe.exclude_nodes)
    if count == 0:
        return source
    (scratch / "tables").mkdir()
    graphs.save(model, scratch / "tables" / source.name)
    return scratch / "tables" / source.name


def _largest_values(
    place: Path, weights: Path, names: Sequence[str], feeds: Sequence[Feeds]
) -> dict[str, NDArray[np.float32]]:
    """Return the largest absolute value over all feeds of each channel of outputs (..., channels), by output."""
    from stages.runtimes import onnxruntime

    session, largest = onnxruntime.session(place, weights=weights), dict.fromkeys(names, np.zeros(1, np.float32))
    for fed in progress.each(feeds, "inputs heard for their largest values"):
        with from_library(f"{place}: ONNX Runtime cannot run it"):
            values = session.run(names, fed)
        for name, value in zip(names, values, strict=True):
            seen = np.abs(value).reshape(-1, value.shape[-1]).max(axis=0, initial=0)
            largest[name] = np.maximum(largest[name], seen)
    return largest
