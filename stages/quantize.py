"""Stage `quantize`: graphs at a recipe's precision, with a record of what was quantized and what not."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from stages import models
from stages.core import graphs, layout, params, plan, progress
from stages.core.errors import UserError, did_you_mean, entrypoint, from_library, key_from
from stages.core.files import new_folder, write_json
from stages.core.graphs import Feeds, GraphSet
from stages.core.params import Params
from stages.core.params.recipes import BFloat16Recipe, DynamicRecipe, Float16Recipe, Recipe, StaticRecipe
from stages.core.plan import QuantizedGraph
from stages.corpora import manifest
from stages.quantization import calibration, half, integer, smoothing
from stages.quantization.record import Record, record_of
from stages.runtimes import onnxruntime


def quantize(source: Path, place: Path, recipe: Recipe, feeds: Sequence[Feeds] = ()) -> Record:
    """Write the graph of `source` to `place` at the recipe's precision.

    feeds: what the graph is given in use, where it `needs_feeds`.

    Returns:
        `quantized`: node names to what they became; `kept`: node names to why they stayed, for
        the nodes that carry weights, with fp16 and bf16 for all that compute floats.

    Raises:
        UserError: the source does not load or run, a library cannot quantize it, or the result is not valid ONNX.
    """
    import onnx

    onnxruntime.check(source)
    with tempfile.TemporaryDirectory(dir=place.parent) as scratch:
        if isinstance(recipe, DynamicRecipe | StaticRecipe):
            smoothed = smoothing.smooth(source, Path(scratch), recipe, feeds)
            before = graphs.load_proto(smoothed)
            quantized = Path(scratch) / f"quantized.{source.name}"
            integer.quantize(smoothing.quantize_tables(smoothed, Path(scratch), recipe), quantized, recipe, feeds)
            record = record_of(before, graphs.load_proto(quantized), recipe)
            graphs.save(graphs.load(quantized), place, apart=True)  # a release has the graph under two names
        else:
            record = half.convert(source, place, recipe, Path(scratch), feeds)
    with from_library(f"{source}: the quantized graph is not valid ONNX"):
        onnx.checker.check_model(place, full_check=True)
    return record


def check_effect(folder: Path, records: Mapping[str, Record]) -> None:
    """Check that a recipe quantized something in one of a folder's graphs, whose records these are.

    Raises:
        UserError: it did not.
    """
    if not any(record["quantized"] for record in records.values()):
        kept = {node: why for record in records.values() for node, why in record["kept"].items()}
        raise UserError(f"{folder}: the recipe quantized no node; kept: {kept or 'none has weights'}")


def needs_feeds(recipe: Recipe, folder: Path, graph_set: GraphSet) -> bool:
    """Tell whether a recipe needs to know the activations of these graphs."""
    from stages.rewrites import smooth

    if isinstance(recipe, DynamicRecipe) and recipe.smooth is not None:
        return any(smooth.readers(graphs.load(folder / graph.file)) for graph in graph_set.graphs.values())
    return isinstance(recipe, StaticRecipe | Float16Recipe)


def check_excluded(recipe: Recipe, folder: Path, graph_set: GraphSet) -> None:
    """Check that every node that a recipe excludes is in a graph of the set.

    Raises:
        UserError: one is not.
    """
    if not (excluded := getattr(recipe, "exclude_nodes", [])):
        return
    models = [graphs.load_proto(folder / graph.file) for graph in graph_set.graphs.values()]
    names = {node.name for model in models for node in model.graph.node}
    for name in excluded:
        if name not in names:
            raise UserError(f"exclude_nodes: {folder} has no node {name!r}; {did_you_mean(name, names)}")


def main(argv: Sequence[str]) -> None:
    """Run `python -m stages.quantize MODEL-VARIANT-RECIPE`."""
    p = params.load()
    lines = plan.derive(p).quantize
    line = lines[key_from(argv, "quantize", lines)]
    recipe = p.recipe(line.model, line.variant, line.recipe)
    origin = layout.graphs(line.model, line.variant, line.graph)
    graph_set = graphs.read(origin)
    check_excluded(recipe, origin, graph_set)
    feeds = _feeds(p, line, recipe, origin)
    with new_folder(layout.graphs(line.model, line.variant, line.recipe)) as folder:
        record = {}
        for name, graph in graph_set.graphs.items():
            with progress.phase(f"quantize {graph.file}"):
                record[name] = quantize(origin / graph.file, folder / graph.file, recipe, feeds.get(name, ()))
        check_effect(origin, record)
        graphs.write(folder, graph_set)
        write_json(folder / "quantize.json", record)
        before, after = graphs.size(origin), graphs.size(folder)
    nodes = sum(len(r["quantized"]) for r in record.values())
    print(f"{line.model} {line.variant} {line.recipe}: {nodes} nodes, {before} -> {after} bytes")


def _feeds(p: Params, line: QuantizedGraph, recipe: Recipe, origin: Path) -> Mapping[str, Sequence[Feeds]]:
    if isinstance(recipe, BFloat16Recipe) or not needs_feeds(recipe, origin, graphs.read(origin)):
        return {}
    family = models.load(p.models[line.model].family)
    recordings = manifest.read(layout.corpus(line.dataset), "calibration")
    return calibration.record_feeds(family, layout.checkpoint(line.model), origin, recordings, recipe.calibration_feeds)


if __name__ == "__main__":
    entrypoint(main)
