"""Rewrites are kept only where the numbers are, and the record says what became of each."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir
import pytest

from stages import optimize
from stages.core import graphs
from stages.core.files import sha256
from stages.core.graphs import Graph
from stages.core.parity import largest_differences
from stages.runtimes import onnxruntime
from tests.workspace import ROOT

TOLERANCE = 5e-5


@pytest.fixture
def graph(tiny_export: Path) -> Graph:
    return graphs.read(tiny_export).graphs["model"]


@pytest.fixture
def source(tiny_export: Path) -> Path:
    return tiny_export / "model.onnx"


def test_every_rewrite_is_applied():
    files = {path.stem for path in (ROOT / "stages" / "rewrites").glob("[a-z]*.py")}
    assert set(optimize.REWRITES) == files - {"smooth"}  # which is for `quantize`: it needs to know the activations


def test_the_same_numbers_from_fewer_layers_and_the_same_bytes_each_time(source: Path, graph: Graph, tmp_path: Path):
    record = optimize.optimize(source, graph, tmp_path / "a.onnx", TOLERANCE)
    optimize.optimize(source, graph, tmp_path / "b.onnx", TOLERANCE)
    assert sha256(tmp_path / "a.onnx") == sha256(tmp_path / "b.onnx")
    assert record["memory_block"]["count"] == 4
    assert record["linear_chain"] == {"count": 1, "difference": pytest.approx(0, abs=1e-5), "left_out": None}
    assert record["attention"]["left_out"] == "nothing in the graph to apply it to"
    networks = [onnxruntime.network(path, graph) for path in (source, tmp_path / "a.onnx")]
    assert max(largest_differences(graph, *networks).values()) < TOLERANCE
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.onnx", "b.onnx"]


def test_a_rewrite_that_changes_a_number_is_left_out_and_the_others_are_not(source: Path, graph: Graph, tmp_path: Path):
    def wrong(model: ir.Model) -> tuple[ir.Model, int]:
        new = model.clone()
        next(node for node in new.graph if node.op_type == "Relu").op_type = "Tanh"
        return new, 1

    rewrites = {"wrong": wrong, "memory_block": optimize.REWRITES["memory_block"]}
    record = optimize.optimize(source, graph, tmp_path / "out.onnx", TOLERANCE, rewrites)
    assert "differs by" in record["wrong"]["left_out"]
    assert record["memory_block"]["left_out"] is None
    assert "Tanh" not in {node.op_type for node in onnx.load(tmp_path / "out.onnx").graph.node}


def test_without_any_rewrite_the_graph_is_still_there(source: Path, graph: Graph, tmp_path: Path):
    assert optimize.optimize(source, graph, tmp_path / "out.onnx", TOLERANCE, {}) == {}
    assert len(onnx.load(tmp_path / "out.onnx").graph.node) == len(onnx.load(source).graph.node)


def test_weights_too_many_for_one_file_stay_beside_the_graph(
    source: Path, graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(graphs, "EXTERNAL_BYTES", 1000)
    monkeypatch.setattr(graphs, "LARGE_TENSOR", 1000)
    record = optimize.optimize(source, graph, tmp_path / "out.onnx", TOLERANCE)
    assert record["memory_block"]["left_out"] is None
    assert (tmp_path / "out.onnx.data").stat().st_size > (tmp_path / "out.onnx").stat().st_size
    networks = [onnxruntime.network(path, graph) for path in (source, tmp_path / "out.onnx")]
    assert max(largest_differences(graph, *networks).values()) < TOLERANCE
