"""The catalogue's large models as skeletons: FunASR's networks at full size with random weights, in fp32 and fp16.

python -m benchmarks.gpu.large paraformer_large FOLDER [--tiny]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gpu import skeletons
from benchmarks.gpu.subjects import PRECISIONS
from stages import models, quantize
from stages.commands import catalogue
from stages.core import graphs, params
from stages.core.graphs import Feeds, Graph, GraphSet
from stages.core.params import Params
from stages.export import export
from stages.simplify import run_child
from zoo import replicas


def prepare(name: str, folder: Path, p: Params, *, tiny: bool) -> None:
    """Write the skeletons of a model's graphs, at both precisions, each folder with its graph set.

    tiny: every kind of layer, at a size for tests.
    """
    with tempfile.TemporaryDirectory() as scratch:
        graph_set = _export(name, Path(scratch), p, tiny=tiny)
        for precision in PRECISIONS:
            (folder / precision).mkdir(parents=True)
            graphs.write(folder / precision, graph_set)
        for graph in graph_set.graphs.values():
            _strip(graph, Path(scratch), folder, p)


def _export(name: str, scratch: Path, p: Params, *, tiny: bool) -> GraphSet:
    """Export a replica's graphs to `scratch`/export, and simplify them into `scratch`/simplify."""
    replicas.make(name, scratch / "checkpoint", tiny=tiny)
    family = models.load(catalogue.models()[name].family)
    model = family.load(scratch / "checkpoint")
    graph_set, modules = family.graph_set(model), family.export_modules(model)
    exported, simplified = scratch / "export", scratch / "simplify"
    exported.mkdir()
    simplified.mkdir()
    for key, graph in graph_set.graphs.items():
        export(modules[key], graph, exported / graph.file, p.export.opset)
        if run_child(exported / graph.file, simplified / graph.file, p.simplify):
            graphs.copy(exported / graph.file, simplified)
    graphs.write(simplified, graph_set, exported)
    return graph_set


def _strip(graph: Graph, scratch: Path, folder: Path, p: Params) -> None:
    """Write one graph's skeletons; fp16 is made of the graph that the other skeleton gives."""
    skeleton = folder / "fp32" / graph.file
    draws = skeletons.strip(scratch / "simplify" / graph.file, skeleton)
    filled, half = scratch / "filled" / graph.file, scratch / "half" / graph.file
    for place in (filled, half):
        place.parent.mkdir(exist_ok=True)
    skeletons.fill(skeleton, filled, skeletons.SEED)
    quantize.quantize(filled, half, p.quantize.recipes["fp16"], [_usual_feeds(graph)])
    skeletons.strip_converted(half, folder / "fp16" / graph.file, draws, skeletons.SEED)


def _usual_feeds(graph: Graph) -> Feeds:
    """Draw what a graph is fed at the sizes that its engines are tuned for."""
    return graphs.example_feeds(graph, graph.usual_sizes, skeletons.SEED)


def main(argv: Sequence[str]) -> None:
    """Prepare one model of the catalogue."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=replicas.REPLICAS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tiny", action="store_true", help="every kind of layer, at a size for tests")
    options = parser.parse_args(argv)
    prepare(options.name, options.folder, params.load(), tiny=options.tiny)


if __name__ == "__main__":
    main(sys.argv[1:])
