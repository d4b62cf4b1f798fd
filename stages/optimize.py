"""Stage `optimize`: the simplified graphs rewritten for ONNX Runtime on a CPU, the numbers checked after every rewrite.

The rewrites are in stages/rewrites, in the order in which they are applied. One that does not apply, fails, makes a
graph that is not valid or does not load, or changes a number, is left out, and the record says why.
"""

from __future__ import annotations

import tempfile
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.core import graphs, layout, params, parity, plan, progress
from stages.core.errors import UserError, entrypoint, key_from
from stages.core.files import new_folder, write_json
from stages.core.graphs import Graph
from stages.core.parity import Network
from stages.core.plan import GraphSource
from stages.rewrites import attention, folded, gelu, linear_chain, memory_block, sanm_memory, strided_conv
from stages.runtimes import onnxruntime

if TYPE_CHECKING:
    import onnx_ir as ir

SAID = 280  # characters of a library's message, at most
FAILED, DIFFERS = "failed:", "differs"  # how the reason begins that a rewrite which applies was left out for
Rewrite = Callable[["ir.Model"], tuple["ir.Model", int]]
REWRITES: dict[str, Rewrite] = {
    module.__name__.rpartition(".")[2]: module.rewrite
    for module in (folded, memory_block, sanm_memory, linear_chain, attention, gelu, strided_conv)
}


def optimize(
    source: Path, graph: Graph, place: Path, tolerance: float, rewrites: dict[str, Rewrite] = REWRITES
) -> dict[str, dict[str, Any]]:
    """Write the graph of `source` to `place` with every rewrite that keeps its numbers.

    Large weights that `source` shares with the export stay there, but for those that a rewrite changed.

    tolerance: the largest difference from `source`, relative to an output's scale, that still is the same number.

    Returns:
        Of each rewrite, in order: `count`, how often it applied; `difference`, the largest from `source` with
        it and all before it; `left_out`, why it is not in the result, or None.
    """
    again = parity.remember(onnxruntime.network(source, graph, prepacked=False))
    model = graphs.load(source)
    parity.largest_differences(graph, again(), again())  # a source that does not run is no rewrite's failure
    weights = graphs.weights_folder(source)
    shared = weights if weights != source.parent else None
    record: dict[str, dict[str, Any]] = {}
    for name, rewrite in progress.each(list(rewrites.items()), f"rewrites of {source.name}"):
        try:
            candidate, count = rewrite(model)
            record[name] = {"count": count, "difference": None, "left_out": "nothing in the graph to apply it to"}
            if count > 0:
                with tempfile.TemporaryDirectory(dir=place.parent) as scratch:
                    trial = Path(scratch) / place.name
                    record[name] |= _judge(_try_candidate(candidate, graph, trial, again(), shared), tolerance)
        except Exception as e:  # noqa: BLE001  of any library here: the graph is as good without the rewrite
            record[name] = {"count": 0, "difference": None, "left_out": _describe_failure(e)}
        if record[name]["left_out"] is None:
            model = candidate
    graphs.save(model, place, shared)
    return record


def _try_candidate(
    candidate: ir.Model, graph: Graph, trial: Path, reference: Network, shared: Path | None
) -> dict[str, float]:
    """Write a candidate to `trial`, and return its differences from the reference; shared: as in `graphs.save`.

    Raises:
        Exception: it cannot be written, is not valid, or does not load or run.
    """
    import onnx
    import onnx_ir as ir

    graphs.save(candidate, trial, shared)
    written = ir.load(trial)
    graphs.set_apart(written)
    onnx.checker.check_model(ir.to_proto(written))
    weights = graphs.weights_folder(trial, shared)
    return parity.largest_differences(
        graph, reference, onnxruntime.network(trial, graph, prepacked=False, weights=weights)
    )


def _describe_failure(error: Exception) -> str:
    """Describe in one line what went wrong; libraries quote whole graphs."""
    message = " ".join(str(error if isinstance(error, UserError) else f"{type(error).__name__}: {error}").split())
    return f"{FAILED} {textwrap.shorten(message, SAID, placeholder=' ...')}"


def _judge(differences: dict[str, float], tolerance: float) -> dict[str, Any]:
    why = parity.excess(differences, tolerance)
    return {"left_out": why} if why else {"difference": max(differences.values()), "left_out": None}


def rewrite_graphs(line: GraphSource, name: str, tolerance: float, rewrites: dict[str, Rewrite] = REWRITES) -> None:
    """Write the simplified graphs of a variant, rewritten, into its folder `name`, and print what was applied."""
    origin = layout.graphs(line.model, line.variant, "simplify")
    graph_set = graphs.read(origin)
    with new_folder(layout.graphs(line.model, line.variant, name)) as folder:
        record = {
            key: optimize(origin / graph.file, graph, folder / graph.file, tolerance, rewrites)
            for key, graph in graph_set.graphs.items()
        }
        graphs.write(folder, graph_set, layout.graphs(line.model, line.variant, "export"))
        write_json(folder / "optimize.json", record)
    for graph, outcome in record.items():
        _print_outcome(f"{line.model} {line.variant} {graph}", outcome)


def _print_outcome(what: str, record: dict[str, dict[str, Any]]) -> None:
    """Print which rewrites a graph has, and why others that apply were left out."""
    applied = [f"{rewrite} {r['count']}" for rewrite, r in record.items() if r["left_out"] is None]
    print(f"{what}: {', '.join(applied) or 'nothing to rewrite'}")
    for rewrite, r in record.items():
        if str(r["left_out"]).startswith((FAILED, DIFFERS)):
            print(f"{what}: {rewrite} left out: {r['left_out']}")


def main(argv: Sequence[str]) -> None:
    """Run `python -m stages.optimize MODEL-VARIANT`."""
    p = params.load()
    variants = plan.derive(p).variants
    rewrite_graphs(variants[key_from(argv, "optimize", variants)], "optimize", p.parity.tolerance)


if __name__ == "__main__":
    entrypoint(main)
