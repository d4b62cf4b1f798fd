"""Stage `benchmark`: latency, load time, size and memory of one build against the plain fp32 export.

Both run in this process in turn, a pair at a time, warm and with pinned thread counts, so that what
else the machine does hits both alike; a speedup is the median of the pairs' ratios. ONNX Runtime's
threads spin within a run, as they do by default, and stop at its end: else those of one session would
spin on the cores that the other is timed on.
"""

from __future__ import annotations

import math
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from stages import runtimes
from stages.core import graphs, layout, lifetime, params, plan, progress
from stages.core.errors import entrypoint, key_from
from stages.core.files import write_json
from stages.core.graphs import Feeds, GraphSet
from stages.core.parallel import cores
from stages.core.params import BenchmarkParams, EvaluateParams, Params
from stages.core.params.section import Runtime
from stages.core.parity import Network
from stages.core.statistics import Floats, speedup

MEMORY = "--memory"
LEAST_PAIRS = 5
P99_NEEDS = 500  # samples: fewer leave under five beyond the 99th percentile
Artifact = tuple[Path, Runtime]
Networks = dict[str, Network]


def thread_counts() -> dict[str, int]:
    """One thread and all cores, by the name that a latency case carries."""
    return {"1_thread": 1} if cores() == 1 else {"1_thread": 1, f"{cores()}_threads": cores()}


def time_pairs(
    baseline: Callable[[], object],
    candidate: Callable[[], object],
    pairs: int,
    warmup: int,
    seconds: float = math.inf,
) -> tuple[Floats, Floats]:
    """Milliseconds (pairs,) of each, run in turn; which of the two goes first alternates.

    `pairs` of them, or as many as the seconds allow, but no fewer than LEAST_PAIRS.
    """
    for _ in range(warmup):
        baseline()
        candidate()
    times: list[list[float]] = []
    began = time.perf_counter()
    while len(times) < min(pairs, LEAST_PAIRS) or (len(times) < pairs and time.perf_counter() - began < seconds):
        pair = [0.0, 0.0]
        for which in (0, 1) if len(times) % 2 == 0 else (1, 0):
            start = time.perf_counter()
            (baseline, candidate)[which]()
            pair[which] = 1000 * (time.perf_counter() - start)
        times.append(pair)
    return np.array([b for b, _ in times]), np.array([c for _, c in times])


def latency(
    baseline: Artifact,
    candidate: Artifact,
    settings: BenchmarkParams,
    bootstrap: EvaluateParams,
    counts: Mapping[str, int],
) -> dict[str, dict[str, Any]]:
    """Every latency case at every one of the thread `counts`; a case is one call of each graph of the model."""
    return {
        f"{case}_{name}": found
        for name, threads in counts.items()
        for case, found in _at_threads(baseline, candidate, settings, bootstrap, threads).items()
    }


def _at_threads(
    baseline: Artifact, candidate: Artifact, settings: BenchmarkParams, bootstrap: EvaluateParams, threads: int
) -> dict[str, dict[str, Any]]:
    sets = [graphs.read(folder) for folder, _ in (baseline, candidate)]
    networks = [runtimes.load(f, s, r, threads) for (f, r), s in zip((baseline, candidate), sets, strict=True)]
    results = {}
    for case, at in progress.each(list(sets[0].cases.items()), f"cases at {threads} thread(s)"):
        calls = [_call(n, s, case, settings.seed) for n, s in zip(networks, sets, strict=True)]
        times = time_pairs(calls[0], calls[1], settings.pairs, settings.warmup, settings.seconds)
        results[case] = _summary(*times, bootstrap) | _rtf(times[1], at.seconds)
    return results


def _rtf(milliseconds: Floats, seconds: float | None) -> dict[str, float]:
    """Real-time factor of the network alone: time it takes over the time of the audio; of text there is none."""
    return {} if seconds is None else {"rtf": float(np.median(milliseconds)) / 1000 / seconds}


def _call(networks: Networks, graph_set: GraphSet, case: str, seed: int) -> Callable[[], object]:
    feeds: dict[str, Feeds] = {
        name: graphs.example_feeds(graph, graph_set.cases[case].sizes, seed) for name, graph in graph_set.graphs.items()
    }
    return lambda: [network(feeds[name]) for name, network in networks.items()]


def _summary(baseline: Floats, candidate: Floats, bootstrap: EvaluateParams) -> dict[str, Any]:
    """Percentiles of both in milliseconds, the speedup with its interval, and a small sketch of both distributions."""
    ratio, ci = speedup(baseline, candidate, **bootstrap.model_dump(include={"resamples", "confidence", "seed"}))
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
    return {**percentiles, "speedup": ratio, "ci": list(ci), "pairs": len(candidate), "quantiles_ms": quantiles}


def load_ms(baseline: Artifact, candidate: Artifact, loads: int) -> dict[str, float]:
    """Median milliseconds to make each ready to run, loaded in turn."""

    def load(artifact: Artifact) -> Callable[[], object]:
        graph_set = graphs.read(artifact[0])
        return lambda: runtimes.load(artifact[0], graph_set, artifact[1], 1)

    with progress.phase("loads"):
        times = time_pairs(load(baseline), load(candidate), loads, warmup=1)
    return {"baseline": float(np.median(times[0])), "value": float(np.median(times[1]))}


def peak_memory_mib(artifact: Artifact) -> float:
    """What loading the artifact and running its largest case adds to the peak memory of a fresh process."""
    command = [sys.executable, "-m", "stages.benchmark", MEMORY, str(os.getpid()), str(artifact[0]), artifact[1]]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


def _print_memory(folder: Path, runtime: Runtime) -> None:
    """What runs in the fresh process, whose libraries are loaded before and do not count."""
    graph_set = graphs.read(folder)
    runtimes.warm(runtime)
    before = _peak_mib()
    networks = runtimes.load(folder, graph_set, runtime, 1)
    _call(networks, graph_set, list(graph_set.cases)[-1], seed=0)()
    print(_peak_mib() - before)


def _peak_mib() -> float:
    """Peak resident memory of this process. Linux's ru_maxrss would count the parent's before the exec too."""
    status = Path("/proc/self/status")
    if status.is_file():
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(fields["VmHWM"].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # macOS: in bytes


def benchmark(p: Params, baseline: Artifact, candidate: Artifact) -> dict[str, Any]:
    """All that is measured of a candidate beside the baseline."""
    both = {"baseline": baseline, "value": candidate}
    with (
        progress.phase("memory"),
        ThreadPoolExecutor() as pool,
    ):  # two processes at a time: how fast they are does not matter
        memory = dict(zip(both, pool.map(peak_memory_mib, both.values()), strict=True))
    return {
        "threads": thread_counts(),
        "cases": latency(baseline, candidate, p.benchmark, p.evaluate, thread_counts()),
        "load_ms": load_ms(baseline, candidate, p.benchmark.loads),
        "peak_memory_mib": memory,
        "bytes": {side: graphs.size(artifact[0]) for side, artifact in both.items()},
    }


def main(argv: Sequence[str]) -> None:
    """`python -m stages.benchmark MODEL-TARGET`."""
    if argv[:1] == [MEMORY]:
        lifetime.end_with_parent(int(argv[1]))
        return _print_memory(Path(argv[2]), argv[3])  # type: ignore[arg-type]
    p = params.load()
    builds = plan.derive(p).builds
    name = key_from(argv, "benchmark", builds)
    build, target = builds[name], p.targets[builds[name].target]
    why = runtimes.why_unavailable(target.runtime)
    # Which bytes these are: a report is made again when they change, though nothing here can run them.
    result: dict[str, Any] = {"unavailable": why, "files": graphs.digests(layout.ARTIFACTS / build.artifact)}
    if why is None:
        baseline: Artifact = (layout.graphs(build.model, "dense", "export"), "onnxruntime")
        result |= benchmark(p, baseline, (layout.ARTIFACTS / build.artifact, target.runtime))
    write_json(layout.measurements(build.target, build.model) / "latency.json", result)
    speeds = [f"{case} {r['speedup']:.2f}x" for case, r in result.get("cases", {}).items()]
    print(f"{name}: {why or ', '.join(speeds)}")
    return None


if __name__ == "__main__":
    entrypoint(main)
