"""A benchmark compares what it says it compares. No time is asserted: speed lives in benchmarks/."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from stages import benchmark
from stages.core import graphs
from stages.core.params import BenchmarkParams, EvaluateParams

SETTINGS = BenchmarkParams(seconds=0.1, pairs=20, warmup=1, loads=3, seed=0)
BOOTSTRAP = EvaluateParams(split="evaluation", resamples=100, confidence=0.95, seed=0)


def test_pairs_run_in_turn_and_alternate_who_is_first():
    order: list[str] = []
    benchmark.time_pairs(lambda: order.append("b"), lambda: order.append("c"), pairs=4, warmup=1)
    assert "".join(order) == "bc" + "bccbbccb"


def test_the_slower_of_two_is_the_slower():
    baseline, candidate = benchmark.time_pairs(lambda: time.sleep(0.004), lambda: None, pairs=5, warmup=1)
    assert baseline.shape == candidate.shape == (5,)
    assert np.median(baseline) > np.median(candidate)


def test_every_case_at_every_thread_count(tiny_export: Path):
    artifact: benchmark.Artifact = (tiny_export, "onnxruntime")
    cases = benchmark.latency(artifact, artifact, SETTINGS, BOOTSTRAP, benchmark.thread_counts())
    names = {f"{case}_{threads}" for case in graphs.read(tiny_export).cases for threads in benchmark.thread_counts()}
    assert set(cases) == names
    for case in cases.values():
        low, high = case["ci"]
        assert low <= case["speedup"] <= high
        assert "p99_ms" not in case  # 20 pairs do not support it
        assert case["p50_ms"] <= case["p90_ms"]
        assert 5 <= case["pairs"] <= 20
    assert cases["10s_1_thread"]["rtf"] == pytest.approx(cases["10s_1_thread"]["p50_ms"] / 10_000)


def test_pairs_end_when_the_seconds_are_used_up():
    baseline, _ = benchmark.time_pairs(lambda: time.sleep(0.01), lambda: None, pairs=1000, warmup=1, seconds=0.1)
    assert 5 <= len(baseline) < 100


def test_memory_is_the_artifact_s_own(tiny_export: Path):
    assert 0 < benchmark.peak_memory_mib((tiny_export, "onnxruntime")) < 200


def test_cases_are_axes_of_the_graph(tiny_export: Path):
    graph_set = graphs.read(tiny_export)
    assert {name for case in graph_set.cases.values() for name in case.sizes} == set(graph_set.graphs["model"].axes)
