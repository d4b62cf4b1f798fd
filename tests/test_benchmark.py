"""A benchmark compares what it says it compares. No time is asserted: speed lives in benchmarks/."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stages import benchmark
from stages.core import graphs
from stages.core.params import BenchmarkParams
from stages.core.timing import Block

SETTINGS = BenchmarkParams(blocks=5, extra_blocks=2, busy=0.1, seconds=0.02, pairs=4, warmup=1, seed=0)


def test_every_case_at_every_thread_count(tiny_export: Path):
    artifact: benchmark.Artifact = (tiny_export, "onnxruntime")
    cases = benchmark.latency(artifact, artifact, SETTINGS, 0.95, benchmark.thread_counts())["cases"]
    names = {f"{case}_{threads}" for case in graphs.read(tiny_export).cases for threads in benchmark.thread_counts()}
    assert set(cases) == names
    for case in cases.values():
        low, high = case["ci"]
        assert low <= case["speedup"] <= high
        assert "p99_ms" not in case  # 20 pairs do not support it
        assert case["p50_ms"] <= case["p90_ms"]
        assert case["blocks"] == 5 <= case["pairs"] <= 20
    assert cases["10s_1_thread"]["rtf"] == pytest.approx(cases["10s_1_thread"]["p50_ms"] / 10_000)


@pytest.mark.parametrize(
    ("busy", "rounds", "left"),
    [
        pytest.param([0.0] * 7, 5, 0.0, id="quiet"),
        pytest.param([0.5, 0, 0, 0.3, 0, 0, 0], 7, 0.0, id="quiet-later"),
        pytest.param([0.5, 1, 0.5, 1, 0.5, 0.5, 0.5], 7, 0.5, id="busy-to-the-end"),
    ],
)
def test_a_busy_machine_is_measured_again(tiny_export: Path, monkeypatch, busy: list[float], rounds: int, left: float):
    """Once a round; then the quietest five of each case count."""
    numbers: list[int] = []

    def time_block(baseline, candidate, *settings: int, number: int, **names: float) -> Block:
        if not (settings or names["warmup"]):  # it is the loading
            numbers.append(number)
        baseline(), candidate()
        return Block(np.array([2.0]), np.array([1.0]), busy[number])

    monkeypatch.setattr(benchmark, "time_block", time_block)
    artifact: benchmark.Artifact = (tiny_export, "onnxruntime")
    found = benchmark.latency(artifact, artifact, SETTINGS, 0.95, {"1_thread": 1})
    assert numbers == list(range(rounds))
    assert {case["busy"] for case in found["cases"].values()} == {left}
    assert {case["blocks"] for case in found["cases"].values()} == {5}
    assert found["load_ms"] == {"baseline": 2, "value": 1}


def test_memory_is_the_artifact_s_own(tiny_export: Path):
    assert 0 < benchmark.peak_memory_mib((tiny_export, "onnxruntime")) < 200


def test_cases_are_axes_of_the_graph(tiny_export: Path):
    graph_set = graphs.read(tiny_export)
    assert {name for case in graph_set.cases.values() for name in case.sizes} == set(graph_set.graphs["model"].axes)
