"""Stage `optimize`: the simplified graphs rewritten for ONNX Runtime on a CPU, the numbers checked after every rewrite.

The rewrites are in stages/rewrites, in the order in which they are applied. One that does not apply, or
changes a number, is left out, and the record says why.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.core import graphs, layout, params
from stages.core.errors import entrypoint, key_from
from stages.core.files import new_folder, write_json
from stages.core.graphs import Feeds, Graph
from stages.core.parity import Network, largest_differences
from stages.rewrites import attention, folded, gelu, linear_chain, memory_block, sanm_memory, strided_conv
from stages.runtimes import onnxruntime

if TYPE_CHECKING:
    import onnx_ir as ir

Rewrite = Callable[["ir.Model"], tuple["ir.Model", int]]
REWRITES: dict[str, Rewrite] = {
    module.__name__.rpartition(".")[2]: module.rewrite
    for module in (folded, memory_block, sanm_memory, linear_chain, attention, gelu, strided_conv)
}


def optimize(
    source: Path, graph: Graph, place: Path, tolerance: float, rewrites: dict[str, Rewrite] = REWRITES
) -> dict[str, dict[str, Any]]:
    """Write the graph of `source` to `place` with every rewrite that keeps its numbers.

    tolerance: the largest difference from `source`, relative to an output's scale, that still is the same number.

    Returns:
        Of each rewrite, in order: `count`, how often it applied; `difference`, the largest from `source` with
        it and all before it; `left_out`, why it is not in the result, or None.
    """
    import onnx_ir as ir

    model, again, record = ir.load(source), remembered(onnxruntime.network(source, graph, prepacked=False)), {}
    with tempfile.TemporaryDirectory(dir=place.parent) as scratch:
        trial = Path(scratch) / place.name
        for name, rewrite in rewrites.items():
            candidate, count = rewrite(model)
            record[name] = {"count": count, "difference": None, "left_out": "nothing in the graph to apply it to"}
            if count > 0:
                graphs.save(candidate, trial)
                differences = largest_differences(graph, again(), onnxruntime.network(trial, graph, prepacked=False))
                record[name] |= _judged(differences, tolerance)
            if record[name]["left_out"] is None:
                model = candidate
                for file in Path(scratch).iterdir():
                    file.replace(place.parent / file.name)
    if not place.is_file():
        graphs.save(model, place)
    return record


def _judged(differences: dict[str, float], tolerance: float) -> dict[str, Any]:
    worst = max(differences, key=lambda name: differences[name])
    if differences[worst] <= tolerance:
        return {"difference": differences[worst], "left_out": None}
    found = f"differs by {differences[worst]:.3g} on {worst}, at most {tolerance:g} is allowed"
    return {"left_out": found}


def remembered(network: Network) -> Callable[[], Network]:
    """Networks that each give what `network` gave the first time, call by call: largest_differences asks the same."""
    answers: list[Feeds] = []

    def again() -> Network:
        calls = itertools.count()

        def run(feeds: Feeds) -> Feeds:
            if (call := next(calls)) == len(answers):
                answers.append(network(feeds))
            return answers[call]

        return run

    return again


def main(argv: Sequence[str]) -> None:
    """`python -m stages.optimize MODEL-VARIANT`."""
    p = params.load()
    line = p.variants[key_from(argv, "optimize", p.variants)]
    origin = layout.graphs(line.model, line.variant, "simplify")
    graph_set = graphs.read(origin)
    with new_folder(layout.graphs(line.model, line.variant, "optimize")) as folder:
        record = {
            name: optimize(origin / graph.file, graph, folder / graph.file, p.optimize.tolerance)
            for name, graph in graph_set.graphs.items()
        }
        graphs.write(folder, graph_set)
        write_json(folder / "optimize.json", record)
    for name, rewrites in record.items():
        said = [f"{rewrite} {r['count']}" for rewrite, r in rewrites.items() if r["left_out"] is None]
        print(f"{line.model} {line.variant} {name}: {', '.join(said) or 'nothing to rewrite'}")


if __name__ == "__main__":
    entrypoint(main)
