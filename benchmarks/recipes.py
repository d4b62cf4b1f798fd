"""What each choice of dynamic quantization costs or gains: `python -m benchmarks.recipes`, after `make repro`.

Every recipe is timed against the plain fp32 export, in turn, in one process, on one thread and on all.
"""

from __future__ import annotations

import tempfile
from functools import partial
from itertools import product
from pathlib import Path

from rich.console import Console
from rich.table import Table

from stages import benchmark
from stages.core import graphs, layout
from stages.core.graphs import example_feeds
from stages.core.params.recipes import DynamicRecipe, Float16Recipe, Recipe
from stages.core.speedups import describe_speedup, speedup
from stages.core.timing import time_block
from stages.quantize import quantize
from stages.runtimes import onnxruntime

PAIRS = {"chunk_200ms": 600, "10s": 40}
BLOCKS, CONFIDENCE = 5, 0.95
GEMM = ["MatMul", "Gemm"]


def recipes() -> dict[str, Recipe]:
    """Return the recipes to compare, by a name that says what each chooses."""
    choices: dict[str, Recipe] = {}
    for weight_type, per_channel, conv in product(("QInt8", "QUInt8"), (True, False), (False, True)):
        name = f"{weight_type} {'per channel' if per_channel else 'per tensor'}{' + Conv' if conv else ''}"
        choices[name] = DynamicRecipe(
            kind="dynamic",
            weight_type=weight_type,
            per_channel=per_channel,
            reduce_range=False,
            op_types=[*GEMM, "Conv"] if conv else GEMM,
            exclude_nodes=[],
        )
    choices["fp16"] = Float16Recipe(kind="float16")
    return choices


def main() -> None:
    """Print a table of speedups over the plain export, and sizes."""
    plain, simplified = (layout.graphs("fsmn_vad", "dense", name) for name in ("export", "simplify"))
    graph_set = graphs.read(plain)
    graph = graph_set.graphs["model"]
    table = Table("recipe", "KB", *(f"{case} {threads}" for threads in benchmark.thread_counts() for case in PAIRS))
    with tempfile.TemporaryDirectory() as scratch:
        models = {"simplified fp32": simplified / graph.file}
        for name, recipe in recipes().items():
            models[name] = Path(scratch) / f"{name}.onnx"
            quantize(simplified / graph.file, models[name], recipe)
        for name, model in models.items():
            ratios = []
            for threads in benchmark.thread_counts().values():
                networks = [onnxruntime.network(path, graph, threads) for path in (plain / graph.file, model)]
                for case, pairs in PAIRS.items():
                    feeds = example_feeds(graph, graph_set.cases[case].sizes, seed=0)
                    first, second = (partial(network, feeds) for network in networks)
                    timed = partial(time_block, first, second, pairs // BLOCKS, warmup=5)
                    blocks = [timed(number=number) for number in range(BLOCKS)]
                    found = speedup([(block.baseline, block.candidate) for block in blocks], CONFIDENCE)
                    ratios.append(describe_speedup(found))
            table.add_row(name, f"{model.stat().st_size / 1000:.0f}", *ratios)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
