"""`benchmarks.floor`: the work of a graph is counted as it is in its shapes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser

from benchmarks import floor
from benchmarks.floor import Node
from stages.core import graphs, params
from stages.quantize import quantize
from tests.workspace import ROOT

FRAMES = 7
GRAPH = """
<ir_version: 10, opset_import: ["" : 18]>
layers (float[1, T, 16] x) => (float[1, T, T] alike)
{
  wide = MatMul(x, w)
  turned = Transpose<perm = [0, 2, 1]>(wide)
  seen = Conv<pads = [1, 1]>(turned, c)
  back = Transpose<perm = [0, 2, 1]>(seen)
  alike = MatMul(back, seen)
}
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A dense layer, a convolution, and products of what they give."""
    model = parser.parse_model(GRAPH)
    rng = np.random.default_rng(0)
    for name, shape in (("w", (16, 32)), ("c", (8, 32, 3))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(rng.standard_normal(shape, np.float32), name))
    onnx.save(model, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def test_every_kind_of_product_is_counted(place: Path):
    found = floor.work(place, {"x": np.ones((1, FRAMES, 16), np.float32)})
    products = [node for node in found if node.products]
    assert products == [
        Node("fp32", (FRAMES, 16, 32)),
        Node("fp32", (FRAMES, 32 * 3, 8)),
        Node("attention", (FRAMES, 8, FRAMES)),
    ]
    assert all(node.bytes for node in found if node.kind == "rest")


def test_a_table_is_read_where_rows_are_taken(tmp_path: Path):
    graph = parser.parse_model("""
<ir_version: 10, opset_import: ["" : 18]>
rows (int64[T] ids) => (float[T, 16] row)
{
  row = Gather(table, ids)
}
""")
    graph.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((1000, 16), np.float32), "table"))
    onnx.save(graph, tmp_path / "model.onnx")
    (node,) = floor.work(tmp_path / "model.onnx", {"ids": np.arange(FRAMES)})
    assert node == Node("rest", bytes=FRAMES * (8 + 2 * 4 * 16))


@pytest.mark.parametrize("kind", ["fp32", "int8"])
def test_a_recurrence_is_products_of_every_step(tmp_path: Path, kind: str):
    graph = parser.parse_model("""
<ir_version: 10, opset_import: ["" : 18]>
recurrence (float[T, 1, 16] x) => (float[T, 2, 1, 8] y)
{
  y = LSTM<hidden_size = 8, direction = "bidirectional">(x, w, r)
}
""")
    for name, size in (("w", 16), ("r", 8)):
        graph.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((2, 32, size), np.float32), name))
    onnx.save(graph, tmp_path / "fp32.onnx")
    recipe = params.load(ROOT / "params.yaml").quantize.recipes["int8"].model_copy(update={"smooth": None})
    quantize(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", recipe)
    found = floor.work(tmp_path / f"{kind}.onnx", {"x": np.ones((FRAMES, 1, 16), np.float32)})
    assert found == [Node(kind, (2 * FRAMES, 16 + 8, 4 * 8))]


def test_a_graph_at_int8_has_as_many_products(tiny_export: Path, tmp_path: Path):
    recipe = params.load(ROOT / "params.yaml").quantize.recipes["int8"].model_copy(update={"smooth": None})
    graph = graphs.read(tiny_export).graphs["model"]
    quantize(tiny_export / graph.file, tmp_path / graph.file, recipe)
    feeds = graphs.example_feeds(graph, graph.usual_sizes, 0)
    dense, integer = (floor.work(folder / graph.file, feeds) for folder in (tiny_export, tmp_path))
    assert sum(node.products for node in dense) == sum(node.products for node in integer)
    assert any(node.kind == "int8" for node in integer)


def test_an_artifact_is_a_line_for_each_case(
    tiny_export: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(floor, "SECONDS", 0)
    monkeypatch.setattr(floor, "PRODUCT_SECONDS", 0)
    monkeypatch.setattr(floor, "COPIED", 2**20)
    floor.main([str(tiny_export)])
    lines = capsys.readouterr().out.splitlines()
    cases = graphs.read(tiny_export).cases
    assert [case for case in cases if any(f" {case} " in line for line in lines)] == list(cases)
