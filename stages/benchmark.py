"""Stage `benchmark`: latency, load time, size and memory of one build against the plain fp32 export.

Both run in this process in turn, a pair at a time, warm and with pinned thread counts, so that what else the machine
does hits both alike. Rounds over all cases, each with networks that are loaded anew, give every case blocks of pairs
that lie apart in time: a speedup and its interval are over blocks. Where others work on the machine there are more
rounds, and only quiet blocks count if there are enough; time in which the calling thread waits for a core never does.

ONNX Runtime's threads spin within a run, as they do by default, and stop at its end: else those of one session would
spin on the cores that the other is timed on.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from stages import runtimes
from stages.core import children, graphs, layout, lifetime, machine, params, plan, progress
from stages.core.errors import UserError, entrypoint, key_from
from stages.core.files import write_json
from stages.core.graphs import Feeds, GraphSet
from stages.core.parallel import cores
from stages.core.params import BenchmarkParams, Params
from stages.core.params.section import ONNX_RUNTIMES, Runtime
from stages.core.parity import Network
from stages.core.speedups import describe_speedup, speedup
from stages.core.timing import Block, quiet, time_block
from stages.runtimes import older

MEMORY = "--memory"
MEMORY_SECONDS = 900  # to load an artifact and run it once, on a busy machine
P99_NEEDS = 500  # samples: fewer leave under five beyond the 99th percentile
Artifact = tuple[Path, Runtime]
Networks = dict[str, Network]
GraphFeeds = dict[str, Feeds]
"""What each graph of a graph set is fed, by the graph's name."""


def thread_counts() -> dict[str, int]:
    """Return one thread and all cores, by the name that a latency case carries."""
    return {"1_thread": 1} if cores() == 1 else {"1_thread": 1, f"{cores()}_threads": cores()}


def latency(
    baseline: Artifact, candidate: Artifact, settings: BenchmarkParams, confidence: float, counts: Mapping[str, int]
) -> dict[str, Any]:
    """Measure every latency case at every one of the thread `counts`; a case is one call of each graph of the model.

    Returns:
        cases: by name. load_ms: median milliseconds to make each of the two ready to run.
    """
    sets = (graphs.read(baseline[0]), graphs.read(candidate[0]))
    feeds = {case: [_feeds(graph_set, case, settings.seed) for graph_set in sets] for case in sets[0].cases}
    blocks: dict[str, list[Block]] = {f"{case}_{name}": [] for name in counts for case in sets[0].cases}
    loads: list[Block] = []
    for number in _rounds(blocks, settings):
        for name, threads in counts.items():
            loaded, timed = _round((baseline, candidate), sets, feeds, settings, threads, number)
            loads.append(loaded)
            for case, block in timed.items():
                blocks[f"{case}_{name}"].append(block)
    seconds = {f"{case}_{name}": at.seconds for name in counts for case, at in sets[0].cases.items()}
    return {
        "cases": {case: _summary(_counted(of, settings), seconds[case], confidence) for case, of in blocks.items()},
        "load_ms": {
            "baseline": float(np.median([load.baseline for load in loads])),
            "value": float(np.median([load.candidate for load in loads])),
        },
    }


def _rounds(blocks: Mapping[str, Sequence[Block]], settings: BenchmarkParams) -> Iterator[int]:
    """Yield the numbers of the rounds that give `blocks`: more while others work on the machine."""
    yield from progress.each(range(settings.blocks), "rounds over all cases")
    for number in range(settings.blocks, settings.blocks + settings.extra_blocks):
        if all(len(quiet(of, settings.busy)) >= settings.blocks for of in blocks.values()):
            return
        with progress.phase(f"round {number + 1}, because others work on this machine"):
            yield number


def _counted(blocks: Sequence[Block], settings: BenchmarkParams) -> Sequence[Block]:
    """Return the blocks that count: the quiet ones or, where those are too few, all."""
    undisturbed = quiet(blocks, settings.busy)
    return undisturbed if len(undisturbed) >= settings.blocks else blocks


def _round(
    artifacts: tuple[Artifact, Artifact],
    sets: tuple[GraphSet, GraphSet],
    feeds: Mapping[str, Sequence[GraphFeeds]],
    settings: BenchmarkParams,
    threads: int,
    number: int,
) -> tuple[Block, dict[str, Block]]:
    """Load both and time a block of every case; return how long loading took and the blocks.

    feeds: by case, of both.
    """
    networks: dict[int, Networks] = {}

    def load(side: int) -> None:
        folder, runtime = artifacts[side]
        networks[side] = runtimes.load(folder, sets[side], runtime, threads)

    loaded = time_block(partial(load, 0), partial(load, 1), pairs=1, warmup=0, number=number)
    timed = {}
    for case, of_both in feeds.items():
        calls = [_call(networks[side], of_both[side]) for side in (0, 1)]
        timed[case] = time_block(
            calls[0], calls[1], settings.pairs, settings.warmup, seconds=settings.seconds, number=number
        )
    return loaded, timed


def _feeds(graph_set: GraphSet, case: str, seed: int) -> GraphFeeds:
    sizes = graph_set.cases[case].sizes
    return {name: graphs.example_feeds(graph, sizes, seed) for name, graph in graph_set.graphs.items()}


def _call(networks: Networks, feeds: GraphFeeds) -> Callable[[], object]:
    return lambda: [network(feeds[name]) for name, network in networks.items()]


def _summary(blocks: Sequence[Block], seconds: float | None, confidence: float) -> dict[str, Any]:
    """Return percentiles of both in milliseconds, the speedup with its interval, and a sketch of both distributions.

    seconds: of audio, which the real-time factor of the network alone is over; of text there is none.
    """
    baseline, candidate = (np.concatenate([getattr(b, side) for b in blocks]) for side in ("baseline", "candidate"))
    at = [50, 90] + ([99] if len(candidate) >= P99_NEEDS else [])
    percentiles = {
        f"{prefix}p{q}_ms": float(np.percentile(times, q))
        for prefix, times in (("", candidate), ("baseline_", baseline))
        for q in at
    }
    quantiles = {
        side: np.percentile(times, range(0, 101, 2)).tolist()
        for side, times in (("baseline", baseline), ("candidate", candidate))
    }
    rtf = {} if seconds is None else {"rtf": percentiles["p50_ms"] / 1000 / seconds}
    return {
        **percentiles,
        **speedup([(block.baseline, block.candidate) for block in blocks], confidence),
        "blocks": len(blocks),
        "pairs": len(candidate),
        "busy": float(np.mean([block.busy for block in blocks])),
        "quantiles_ms": quantiles,
        **rtf,
    }


def peak_memory_mib(artifact: Artifact) -> float:
    """Measure in a fresh process what loading an artifact and running its largest case adds to the peak memory."""
    command = [sys.executable, "-m", "stages.benchmark", MEMORY, str(os.getpid()), str(artifact[0]), artifact[1]]
    done = children.run(command, MEMORY_SECONDS)
    if why := children.why_failed(done):
        raise UserError(f"{artifact[0]}: its memory could not be measured: {why}")
    return float(done.stdout)


def _print_memory(folder: Path, runtime: Runtime) -> None:
    """Print the added peak memory of this fresh process; its libraries are loaded before and do not count."""
    graph_set = graphs.read(folder)
    runtimes.warm(runtime)
    before = _peak_mib()
    networks = runtimes.load(folder, graph_set, runtime, 1)
    _call(networks, _feeds(graph_set, list(graph_set.cases)[-1], seed=0))()
    print(_peak_mib() - before)


def _peak_mib() -> float:
    """Return the peak resident memory of this process; Linux's ru_maxrss includes the parent's before the exec."""
    status = Path("/proc/self/status")
    if status.is_file():
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(fields["VmHWM"].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # macOS: in bytes


def benchmark(p: Params, baseline: Artifact, candidate: Artifact) -> dict[str, Any]:
    """Measure a candidate beside the baseline: times, memory, size and the oldest ONNX Runtime for it."""
    both = {"baseline": baseline, "value": candidate}
    return {
        "threads": thread_counts(),
        **latency(baseline, candidate, p.benchmark, p.evaluate.confidence, thread_counts()),
        **_loads(both),
        "bytes": {side: graphs.size(artifact[0]) for side, artifact in both.items()},
    }


def _loads(both: Mapping[str, Artifact]) -> dict[str, Any]:
    """Load both in processes of their own, and run the candidate in older versions of ONNX Runtime too.

    All of them at the same time: how fast they are does not matter.
    """
    folder, runtime = both["value"]
    with progress.phase("memory and older versions of ONNX Runtime"), ThreadPoolExecutor() as pool:
        peaks = {side: pool.submit(peak_memory_mib, artifact) for side, artifact in both.items()}
        oldest = pool.submit(older.oldest, folder) if runtime in ONNX_RUNTIMES else None
    memory = {"peak_memory_mib": {side: peak.result() for side, peak in peaks.items()}}
    return memory | ({"runtimes": oldest.result()} if oldest else {})


def main(argv: Sequence[str]) -> None:
    """Run `python -m stages.benchmark MODEL-TARGET`."""
    if argv[:1] == [MEMORY]:
        lifetime.end_with_parent(int(argv[1]))
        return _print_memory(Path(argv[2]), argv[3])  # type: ignore[arg-type]
    p = params.load()
    builds = plan.derive(p).builds
    name = key_from(argv, "benchmark", builds)
    build, target = builds[name], p.targets[builds[name].target]
    runtimes.enter(target.runtime, "benchmark", argv)
    why = runtimes.why_unavailable(target.runtime, layout.ARTIFACTS / build.artifact)
    # Which bytes these are: a report is made again when they change, though nothing here can run them.
    result: dict[str, Any] = {"unavailable": why, "files": graphs.digests(layout.ARTIFACTS / build.artifact)}
    if why is None:
        result["machine"] = machine.name()
        baseline: Artifact = (layout.graphs(build.model, "dense", "export"), "onnxruntime")
        result |= benchmark(p, baseline, (layout.ARTIFACTS / build.artifact, target.runtime))
    write_json(layout.measurements(build.target, build.model) / "latency.json", result)
    speeds = [f"{case} {describe_speedup(r)}" for case, r in result.get("cases", {}).items()]
    print(f"{name}: {why or ', '.join(speeds)}")
    return None


if __name__ == "__main__":
    entrypoint(main)
