"""A recipe tried on one build: its graphs quantized, scored on the tuning split and timed beside the plain export."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

import numpy as np

from stages import benchmark, models, runtimes
from stages.core import graphs, layout, params, plan
from stages.core.errors import UserError, did_you_mean
from stages.core.files import read_json, write_json
from stages.core.graphs import Feeds
from stages.core.params import Params
from stages.core.params.recipes import DynamicRecipe, StaticRecipe
from stages.core.plan import QuantizedGraph
from stages.corpora import manifest
from stages.corpora.manifest import Recording
from stages.evaluate import evaluate
from stages.models.protocols import Family
from stages.quantization import calibration
from stages.quantize import check_effect, quantize
from stages.reference import write_reference
from stages.runtimes import onnxruntime

Int8 = DynamicRecipe | StaticRecipe
COMPARED = 8  # inputs of each graph whose outputs are compared


@dataclass(frozen=True)
class Bench:
    """One build, with what all its trials share.

    reference: what the fp32 torch model says of the recordings, which are the tuning split. feeds: what each graph is
    given in use, from the calibration split.
    """

    p: Params
    build: str
    line: QuantizedGraph
    family: Family[Any]
    checkpoint: Path
    recordings: Sequence[Recording]
    reference: Path
    feeds: Mapping[str, Sequence[Feeds]]
    scratch: Path

    @property
    def recipe(self) -> Int8:
        """Return the recipe that params.yaml has for the build."""
        recipe = self.p.recipe(self.line.model, self.line.variant, self.line.recipe)
        assert isinstance(recipe, DynamicRecipe | StaticRecipe)  # noqa: S101  `open_bench` has checked it
        return recipe

    @property
    def headline(self) -> str:
        """Return the name of the metric that ranks recipes."""
        return f"{self.family.MODES[0]}_{self.family.HEADLINE}"

    def origin(self, graph: str) -> Path:
        """Return the folder of the fp32 graphs that a recipe is applied to."""
        return layout.graphs(self.line.model, self.line.variant, graph)


def add_build(parser: ArgumentParser) -> None:
    """Add the two arguments that name a build."""
    parser.add_argument("model", metavar="MODEL", help="of params.yaml")
    parser.add_argument("target", metavar="TARGET", help="an INT8 target that onnxruntime runs")


@contextmanager
def open_bench(model: str, target: str) -> Iterator[Bench]:
    """Prepare trials of a build that runs an INT8 recipe on this machine.

    Raises:
        UserError: there is no such build, its target has no INT8 recipe for a CPU, or `make repro` has not made it yet.
    """
    p = params.load()
    build = f"{model}-{target}"
    tables = plan.derive(p)
    if build not in tables.builds:
        raise UserError(f"params.yaml has no build {build!r}; {did_you_mean(build, tables.builds)}")
    recipe, runtime = p.quantize.recipes.get(p.targets[target].graph), p.targets[target].runtime
    if runtime != "onnxruntime" or not isinstance(recipe, DynamicRecipe | StaticRecipe):
        raise UserError(f"targets.{target}: found {p.targets[target].graph} on {runtime}, wanted INT8 on onnxruntime")
    variant = p.targets[target].variant
    line = tables.quantize[f"{model}-{variant}-{p.targets[target].graph}"]
    origin = layout.graphs(model, variant, line.graph)
    if not (origin / graphs.FILE).is_file():
        raise UserError(f"{origin} is not there; `make repro` makes it")
    family = models.load(p.models[model].family)
    corpus, checkpoint = layout.corpus(p.models[model].dataset), layout.checkpoint(model)
    recordings = manifest.read(corpus, "tuning")
    with TemporaryDirectory() as scratch:
        reference = Path(scratch) / "reference"
        reference.mkdir()
        write_reference(family, checkpoint, recordings, reference)
        count = recipe.calibration_feeds
        feeds = calibration.record_feeds(family, checkpoint, origin, manifest.read(corpus, "calibration"), count)
        yield Bench(p, build, line, family, checkpoint, recordings, reference, feeds, Path(scratch))


def quantize_graphs(bench: Bench, recipe: Int8, graph: str) -> Path:
    """Quantize the build's `graph`s (`simplify` or `optimize`) at another recipe, into a folder of the bench.

    Raises:
        UserError: the recipe quantizes nothing.
    """
    origin, folder = bench.origin(graph), Path(mkdtemp(dir=bench.scratch))
    graph_set = graphs.read(origin)
    names = {node for nodes in layers(origin, recipe).values() for node in nodes}
    here = {"exclude_nodes": [node for node in recipe.exclude_nodes if node in names]}
    own = recipe.model_copy(update=here)
    records = {
        name: quantize(origin / one.file, folder / one.file, own, bench.feeds[name])
        for name, one in graph_set.graphs.items()
    }
    check_effect(origin, records)
    graphs.write(folder, graph_set)
    return folder


def accuracy(bench: Bench, folder: Path) -> dict[str, dict[str, Any]]:
    """Measure every metric of an artifact against the fp32 torch model, as `evaluate` does, on the tuning split.

    Raises:
        UserError: it gives numbers that are not finite, which no gate lets pass.
    """
    graph_set = graphs.read(folder)
    artifact = graph_set, runtimes.load(folder, graph_set, "onnxruntime", threads=1)
    found = evaluate(bench.family, bench.checkpoint, bench.recordings, artifact, bench.reference, bench.p.evaluate)
    if found["not_finite"]:
        raise UserError(f"{bench.build}: NaN or infinite numbers in {found['not_finite']} recordings of tuning")
    metrics: dict[str, dict[str, Any]] = found["metrics"]
    return metrics


def speedups(bench: Bench, folder: Path, seconds: float) -> dict[str, dict[str, Any]]:
    """Return the `speedup` over the plain fp32 export and its `ci`, by latency case at one thread.

    seconds: of timing for a case, all its blocks together.
    """
    settings = bench.p.benchmark.model_copy(update={"seconds": seconds / bench.p.benchmark.blocks})
    plain, one_thread = layout.graphs(bench.line.model, "dense", "export"), {"1_thread": 1}
    both: tuple[benchmark.Artifact, benchmark.Artifact] = (plain, "onnxruntime"), (folder, "onnxruntime")
    timed = benchmark.latency(*both, settings, bench.p.evaluate.confidence, one_thread)
    return {name: {key: case[key] for key in ("speedup", "ci")} for name, case in timed["cases"].items()}


def output_error(bench: Bench, folder: Path, graph: str) -> float:
    """Return how far the outputs are from the fp32 graphs': relative root mean square, over calibration inputs."""
    errors = []
    sets = [graphs.read(place) for place in (bench.origin(graph), folder)]
    both = [onnxruntime.load(place, s) for place, s in zip((bench.origin(graph), folder), sets, strict=True)]
    for name in sets[0].graphs:
        for feeds in bench.feeds[name][:: max(1, len(bench.feeds[name]) // COMPARED)]:
            expected, found = (networks[name](feeds) for networks in both)
            errors += [_relative(expected[key], found[key]) for key in expected]
    return float(np.mean(errors))


def _relative(expected: Any, found: Any) -> float:
    if expected.shape != found.shape:
        return 1.0  # another number of tokens
    scale = float(np.sqrt(np.mean(np.square(expected, dtype=np.float64)))) or 1.0
    return float(np.sqrt(np.mean(np.square(expected.astype(np.float64) - found)))) / scale


def layers(folder: Path, recipe: Int8) -> dict[str, list[str]]:
    """Find the nodes that a recipe would quantize if it excluded none, grouped by the name of their layer.

    A layer is called as its weight or bias is in torch, where the exporter kept that, else as its node.
    """
    from stages.rewrites import embedding

    found: dict[str, list[str]] = {}
    for graph in graphs.read(folder).graphs.values():
        if recipe.embedding_rows is not None:
            for table in embedding.tables(graphs.load(folder / graph.file), recipe.embedding_rows):
                named = str(table.name).removesuffix(".weight")
                found.setdefault(named, []).extend(str(use.node.name) for use in table.uses())
        model = graphs.load_proto(folder / graph.file)
        shapes = {i.name: list(i.dims) for i in model.graph.initializer}
        readers = {name: node for node in model.graph.node for name in node.input}
        for node in model.graph.node:
            weight = next((name for name in node.input[1:] if len(shapes.get(name, [])) > 1), None)
            if weight is not None and node.op_type in recipe.op_types:
                add = readers.get(node.output[0])
                biases = [name for name in (*node.input, *(add.input if add is not None else ())) if name in shapes]
                named = next((name for name in biases if "." in name), node.name)
                found.setdefault(named.removesuffix(".bias").removesuffix(".weight"), []).append(node.name)
    return _join_layers(found)


def _join_layers(found: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Join layers of two graphs whose nodes have the same name: a recipe that excludes one excludes the other."""
    layers_of: dict[tuple[str, ...], list[str]] = {}
    for layer, nodes in found.items():
        layers_of.setdefault(tuple(nodes), []).append(layer)
    return {", ".join(names): list(nodes) for nodes, names in layers_of.items()}


def read(build: str) -> dict[str, Any]:
    """Read what searches found of a build so far."""
    place = layout.search(build)
    known: dict[str, Any] = read_json(place) if place.is_file() else {}
    return known


def write(build: str, part: str, found: Mapping[str, Any]) -> None:
    """Replace one part of what searches found of a build."""
    write_json(layout.search(build), read(build) | {part: dict(found)})


def subject(bench: Bench) -> dict[str, Any]:
    """Describe what a search depends on: if any of it changed, its findings do not hold."""
    digests = {graph: graphs.digests(bench.origin(graph)) for graph in ("simplify", "optimize")}
    return {"graphs": digests, "recordings": len(bench.recordings), "metric": bench.headline}
