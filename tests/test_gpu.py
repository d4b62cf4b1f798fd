"""`make gpu`, as far as a machine without a device goes: skeletons, what fails, and what is written of it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu import networks, pack, parts, skeletons, stages_on_device
from benchmarks.gpu.record import Record
from benchmarks.gpu.subjects import PRECISIONS, Subject
from stages.core import graphs, params
from stages.core.graphs import Feeds, Graph
from stages.quantize import quantize
from stages.reporting import devices, results
from stages.runtimes import onnxruntime
from tests import workspace
from tests.workspace import ROOT

MACHINE = {"gpu": "NVIDIA X1 | 80GB, 9.0, 580.1", "cpu": "A CPU"}
RESULTS = ROOT / "benchmarks" / "gpu"


@pytest.fixture
def graph(tiny_export: Path, monkeypatch: pytest.MonkeyPatch) -> Graph:
    monkeypatch.setattr(skeletons, "KEPT", 100)
    return graphs.read(tiny_export).graphs["model"]


def answers(place: Path, graph: Graph) -> Feeds:
    feeds = graphs.example_feeds(graph, {"feats_length": 30}, seed=1)
    return onnxruntime.network(place, graph)(feeds)


def test_a_skeleton_is_small_and_filled_alike_every_time(graph: Graph, tiny_export: Path, tmp_path: Path):
    draws = skeletons.strip(tiny_export / graph.file, tmp_path / "skeleton.onnx")
    assert draws
    assert (tmp_path / "skeleton.onnx").stat().st_size < (tiny_export / graph.file).stat().st_size / 2
    found = []
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        (tmp_path / name).mkdir()
        skeletons.fill(tmp_path / "skeleton.onnx", tmp_path / name / graph.file, seed)
        found.append(answers(tmp_path / name / graph.file, graph)["logits"])
    assert np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


def test_weights_are_drawn_with_the_mean_and_spread_that_they_had(graph: Graph, tiny_export: Path, tmp_path: Path):
    for draw in skeletons.strip(tiny_export / graph.file, tmp_path / "skeleton.onnx"):
        numbers = draw.numbers(seed=5)
        assert numbers.shape == tuple(draw.shape)
        assert abs(numbers.mean() - draw.mean) < 0.5 * draw.std
        assert 0.7 < numbers.std() / draw.std < 1.3


def test_fp16_of_a_filled_graph_is_a_skeleton_of_the_same_weights(graph: Graph, tiny_export: Path, tmp_path: Path):
    draws = skeletons.strip(tiny_export / graph.file, tmp_path / "skeleton.onnx")
    for name in ("filled", "half", "again"):
        (tmp_path / name).mkdir()
    skeletons.fill(tmp_path / "skeleton.onnx", tmp_path / "filled" / graph.file, seed=5)
    recipe = params.load(ROOT / "params.yaml").quantize.recipes["fp16"]
    feeds = graphs.example_feeds(graph, {"feats_length": 30}, seed=0)
    half = tmp_path / "half" / graph.file
    quantize(tmp_path / "filled" / graph.file, half, recipe, [feeds])
    skeletons.strip_converted(half, tmp_path / "half.onnx", draws, seed=5)
    assert (tmp_path / "half.onnx").stat().st_size < half.stat().st_size - 2 * sum(np.prod(d.shape) for d in draws) / 2
    skeletons.fill(tmp_path / "half.onnx", tmp_path / "again" / graph.file, seed=5)
    before, after = answers(half, graph), answers(tmp_path / "again" / graph.file, graph)
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_a_part_that_fails_is_a_line_that_says_why(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    [row] = gpu.run_job(gpu.Job("parity", "nothing_of_that_name"), "cpu", time.monotonic() + 60)
    assert row["model"] == "nothing_of_that_name"
    assert "found no graphs of 'nothing_of_that_name'" in row["failed"]


def test_what_is_left_when_the_time_is_up_is_said():
    assert gpu.run_job(gpu.Job("parity", "m"), "cpu", time.monotonic()) == [{"model": "m", "failed": "the time was up"}]


def test_rows_and_failures_are_written_at_once_and_replaced_by_a_second_go(tmp_path: Path):
    row = {"model": "m", "graph": "g", "precision": "fp16", "differences": {"usual": 0.1, "longest": None}}
    Record(tmp_path, MACHINE).add("parity", "m", [row])
    text = (tmp_path / "nvidia_x1_80gb.md").read_text()
    assert "| m | g | fp16 | other shape, or not finite (longest) | other shape, or not finite |" in text
    Record(tmp_path, MACHINE).add("speed", "n", [{"model": "n", "failed": "died of signal 11"}])
    assert "- n: not measured: died of signal 11" in (tmp_path / "nvidia_x1_80gb.md").read_text()
    Record(tmp_path, MACHINE).add("parity", "m", [row | {"differences": {"longest": 0.25}}])
    assert "| m | g | fp16 | 2.5e-01 (longest) | 2.5e-01 |" in (tmp_path / "nvidia_x1_80gb.md").read_text()
    assert json.loads((tmp_path / "nvidia_x1_80gb.json").read_text())["parts"]["speed"][0]["model"] == "n"


def test_what_cannot_be_compared_can_be_written():
    assert networks.comparable({"usual": 0.5, "longest": float("inf")}) == {"usual": 0.5, "longest": None}


def test_throughput_is_of_recordings_of_one_length_and_the_longest_case_is_what_graphs_are_made_for(tiny_export: Path):
    graph_set = graphs.read(tiny_export)
    name, case = list(networks.cases(graph_set))[-1]
    assert case.sizes["feats_length"] == graph_set.graphs["model"].axes["feats_length"].max
    assert name == f"{case.seconds:.0f}s"
    assert networks.main_case(graph_set) == "10s"


def test_a_bound_call_computes_on_the_memory_that_it_is_given(tiny_export: Path):
    graph_set = graphs.read(tiny_export)
    sessions = networks.open_sessions(tiny_export, graph_set, onnxruntime.CPU)
    case = graph_set.cases["chunk_200ms"]
    call = networks.bind(sessions["model"], networks.feeds_of(graph_set.graphs["model"], case, 1), "cpu")
    assert networks.median_ms(call, 0.01) > 0


def test_recordings_and_their_references_are_picked_alike():
    picked = pack._spread(list(range(100)), 5)
    assert picked == pack._spread(range(100), 5) == [0, 25, 50, 74, 99]
    assert pack._spread([1, 2], 5) == [1, 2]


def test_what_stages_gave_on_a_device_is_what_reports_read(
    tiny_export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    given = {"accuracy.json": workspace.accuracy("good"), "latency.json": workspace.latency("good")}
    monkeypatch.setattr(stages_on_device, "_run", lambda *arguments: given[arguments[-1]])
    subject = Subject(workspace.MODEL, dict.fromkeys(PRECISIONS, tiny_export), is_large=False)
    record = Record(tmp_path, MACHINE | {"date": "2026-11-27"})
    for part in ("accuracy", "latency"):
        rows = parts.PARTS[part](subject, networks.DEVICES["cpu"])
        record.add(part, subject.name, [{"model": subject.name} | row for row in rows])
    read = devices.read(record.place).parts
    assert {row.sha256 for row in (*read.accuracy, *read.latency)} == {results.artifact(tiny_export)["sha256"]}
    assert [row.headline for row in read.accuracy] == [workspace.AGREEMENT]
    assert [row.case for row in read.latency] == list(workspace.CASES)


def test_committed_results_are_what_their_json_says(tmp_path: Path):
    places = list(RESULTS.glob("*.json"))
    assert places
    for place in places:
        (tmp_path / place.name).write_text(place.read_text())
        Record(tmp_path, json.loads(place.read_text())["machine"]).add("fill", "", [])
        assert (tmp_path / place.name).with_suffix(".md").read_text() == place.with_suffix(".md").read_text()
