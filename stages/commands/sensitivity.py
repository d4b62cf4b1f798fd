"""Measure, after `make repro`, what it costs to quantize each component and each layer of a model alone."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from rich.console import Console
from rich.table import Table

from stages.commands import trials
from stages.commands.trials import Bench
from stages.core import layout, progress
from stages.core.errors import UserError
from stages.core.statistics import loss, loss_interval
from stages.reporting.figures import ranked

PART = "sensitivity"
EXAMPLE = "kiln sensitivity fsmn_vad cpu_int8"
Found = dict[str, dict[str, Any]]


def add_arguments(parser: ArgumentParser) -> None:
    """Add the model and the target of the build to measure."""
    trials.add_build(parser)


def run(arguments: Namespace) -> None:
    """Measure the build's layers."""
    sensitivity(arguments.model, arguments.target)


def sensitivity(model: str, target: str) -> None:
    """Measure what was not measured yet, write it after each measurement, and print the ranking.

    Raises:
        UserError: see `trials.open_bench`; or nothing is quantized.
    """
    with trials.open_bench(model, target) as bench:
        found = measure(bench)
    table = Table("component or layer", bench.headline, "loss", "interval", "output error", box=None)
    for name, row in ranked(found):
        low, high = (end + 0.0 for end in row["ci"])  # a zero without a sign
        interval = f"[{low:+.4f}, {high:+.4f}]"
        table.add_row(name, f"{row['value']:.4f}", f"{row['loss'] + 0.0:+.4f}", interval, f"{row['error']:.2e}")
    Console(width=120).print(table)
    print(f"{layout.search(bench.build)}; the report of {target} shows it after the next `dvc repro`")


def measure(bench: Bench) -> Found:
    """Measure the loss with each unit alone quantized at the build's recipe, going on where the last call stopped."""
    known = trials.read(bench.build).get(PART, {})
    about = trials.subject(bench) | {"recipe": bench.recipe.model_dump()}
    found: Found = known["units"] if known.get("about") == about else {}
    by_unit = units(bench)
    every = {node for nodes in by_unit.values() for node in nodes}
    for name, nodes in progress.each(list(by_unit.items()), f"{PART} of {bench.build}"):
        if name not in found:
            found[name] = _measure_alone(bench, sorted(every - set(nodes))) | {"nodes": nodes}
            trials.write(bench.build, PART, {"about": about, "units": found})
    return found


def units(bench: Bench) -> dict[str, list[str]]:
    """Group the nodes to quantize by component (`encoder.*`), where there are several, then by layer.

    Raises:
        UserError: the recipe quantizes nothing.
    """
    by_layer = trials.layers(bench.origin(bench.line.graph), bench.recipe)
    if not by_layer:
        raise UserError(f"{bench.build}: its recipe quantizes no layer of {bench.origin(bench.line.graph)}")
    components: dict[str, list[str]] = {}
    for name, nodes in by_layer.items():
        components.setdefault(f"{name.partition('.')[0]}.*", []).extend(nodes)
    named = {name: nodes for name, nodes in components.items() if len(nodes) > 1}
    return {**(named if len(named) > 1 else {}), **by_layer}


def _measure_alone(bench: Bench, others: list[str]) -> dict[str, Any]:
    """Quantize a graph with the `others` left in fp32 and return its metric, loss and output error."""
    recipe = bench.recipe.model_copy(update={"exclude_nodes": others, "min_outputs": 1, "min_intensity": 0})
    folder = trials.quantize_graphs(bench, recipe, bench.line.graph)
    metric = trials.accuracy(bench, folder)[bench.headline]
    if metric["ci"] is None:
        raise UserError(f"{bench.build}: the tuning split has nothing to measure {bench.headline} by, or one recording")
    error = trials.output_error(bench, folder, bench.line.graph)
    return {"value": metric["value"], "loss": loss(metric), "ci": loss_interval(metric), "error": error}
