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
        assert "p99_ms" not in case  # so few pairs do not support it
        assert case["p50_ms"] <= case["p90_ms"]
        assert 5 <= case["blocks"] <= case["pairs"] <= 28
    assert cases["10s_1_thread"]["rtf"] == pytest.approx(cases["10s_1_thread"]["p50_ms"] / 10_000)


@pytest.mark.parametrize(
    ("busy", "rounds", "counted", "left"),
    [
        pytest.param([0.0] * 7, 5, 5, 0.0, id="quiet"),
        pytest.param([0.5, 0, 0, 0.3, 0, 0, 0], 7, 5, 0.0, id="quiet-later"),
        pytest.param([0.5, 1, 0, 0, 0, 0.5, 0.5], 7, 7, 2.5 / 7, id="busy-to-the-end"),
    ],
)
def test_a_busy_machine_is_measured_again(
    tiny_export: Path, monkeypatch, busy: list[float], rounds: int, counted: int, left: float
):
    """One round after the other; what counts is quiet or, without five quiet blocks, all."""
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
    assert [case["busy"] for case in found["cases"].values()] == pytest.approx([left] * len(found["cases"]))
    assert {case["blocks"] for case in found["cases"].values()} == {counted}
    assert found["load_ms"] == {"baseline": 2, "value": 1}


def test_memory_is_the_artifact_s_own(tiny_export: Path):
    assert 0 < benchmark.peak_memory_mib((tiny_export, "onnxruntime")) < 200


def test_cases_are_axes_of_the_graph(tiny_export: Path):
    graph_set = graphs.read(tiny_export)
    assert {name for case in graph_set.cases.values() for name in case.sizes} == set(graph_set.graphs["model"].axes)
