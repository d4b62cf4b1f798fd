"""Rewrites are kept only where the numbers are, and the record says what became of each."""

from __future__ import annotations

import re
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest

from stages import optimize
from stages.core import graphs
from stages.core.errors import UserError
from stages.core.files import sha256
from stages.core.graphs import Graph
from stages.core.parity import largest_differences
from stages.runtimes import onnxruntime
from tests.rewrites.graphs import numbers
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
    # Two are for `quantize`, by its recipe, and one for `portable`.
    assert set(optimize.REWRITES) == files - {"smooth", "embedding", "copied_sizes"}


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


def misshapen(model: ir.Model) -> tuple[ir.Model, int]:
    """Give a layer a weight of another shape: the file is whole, and ONNX Runtime refuses it."""
    new = model.clone()
    weight = next(value for value in new.graph.initializers.values() if numbers(value).ndim == 2)
    fewer = numbers(weight)[:-3]
    weight.const_value, weight.shape = ir.tensor(fewer, name=weight.name), ir.Shape(fewer.shape)
    return new, 1


def unreadable(model: ir.Model) -> tuple[ir.Model, int]:
    """Read a value that the graph does not have, as where two initializers were given one name."""
    new = model.clone()
    second = [value for value in new.graph.initializers.values() if numbers(value).ndim == 2][1]
    for use in list(second.uses()):
        use.node.replace_input_with(use.idx, ir.Value(name="nowhere"))
    return new, 1


def raising(_: ir.Model) -> tuple[ir.Model, int]:
    raise AttributeError("shape of None")


def invalid(model: ir.Model) -> tuple[ir.Model, int]:
    new = model.clone()
    next(node for node in new.graph if node.op_type == "Relu").op_type = "Rellu"
    return new, 1


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        pytest.param(misshapen, "failed: .*ONNX Runtime .*cannot", id="does-not-load"),
        pytest.param(unreadable, "failed: .{20,300}$", id="cannot-be-written"),
        pytest.param(raising, "failed: AttributeError: shape of None", id="raises"),
        pytest.param(invalid, "failed: .*Rellu", id="not-valid"),
    ],
)
def test_a_rewrite_that_breaks_the_graph_is_left_out_with_the_reason(broken, why, source, graph, tmp_path: Path):
    rewrites = {"broken": broken, "memory_block": optimize.REWRITES["memory_block"]}
    record = optimize.optimize(source, graph, tmp_path / "out.onnx", TOLERANCE, rewrites)
    assert re.search(why, record["broken"]["left_out"])
    assert record["memory_block"]["left_out"] is None
    networks = [onnxruntime.network(path, graph) for path in (source, tmp_path / "out.onnx")]
    assert max(largest_differences(graph, *networks).values()) < TOLERANCE


def test_a_source_that_does_not_run_is_no_rewrite_s_failure(source: Path, graph: Graph, tmp_path: Path):
    model = ir.load(source)
    matmul = next(node for node in model.graph if node.op_type == "MatMul")
    weight = matmul.inputs[1]
    assert weight is not None
    weight.const_value = ir.tensor(numbers(weight)[:-1], name=weight.name)
    ir.save(model, tmp_path / "broken.onnx")
    with pytest.raises(UserError, match=r"broken\.onnx: ONNX Runtime .*cannot (load|run) it"):
        optimize.optimize(tmp_path / "broken.onnx", graph, tmp_path / "out.onnx", TOLERANCE)
    assert not (tmp_path / "out.onnx").exists()


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


def test_a_truncated_source_is_one_line_that_names_it(source: Path, graph: Graph, tmp_path: Path):
    (tmp_path / "broken.onnx").write_bytes(source.read_bytes()[:2000])
    with pytest.raises(UserError, match=r"^[^\n]*broken\.onnx[^\n]*$"):
        optimize.optimize(tmp_path / "broken.onnx", graph, tmp_path / "out.onnx", TOLERANCE)
