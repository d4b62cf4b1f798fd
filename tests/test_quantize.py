"""A recipe does what it says and records what it left alone, and why."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest

from stages.core import graphs
from stages.core.errors import UserError
from stages.core.files import sha256
from stages.core.graphs import example_feeds
from stages.core.params import DynamicRecipe, Float16Recipe
from stages.quantize import quantize
from stages.runtimes import onnxruntime

INT8 = DynamicRecipe(
    kind="dynamic",
    weight_type="QInt8",
    per_channel=True,
    reduce_range=False,
    op_types=["MatMul", "Gemm"],
    exclude_nodes=[],
)
FP16 = Float16Recipe(kind="float16", keep_fp32_ops=["Softmax"])


@pytest.fixture
def source(tiny_export: Path) -> Path:
    return tiny_export / "model.onnx"


def ops(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def outputs(path: Path, export: Path) -> dict[str, np.ndarray]:
    graph = graphs.read(export).graphs["model"]
    return onnxruntime.network(path, graph)(example_feeds(graph, {"feats_length": 50}, seed=0))


@pytest.mark.parametrize("recipe", [pytest.param(INT8, id="int8"), pytest.param(FP16, id="fp16")])
def test_smaller_close_and_the_same_bytes_each_time(source: Path, tiny_export: Path, tmp_path: Path, recipe):
    quantize(source, tmp_path / "a.onnx", recipe)
    quantize(source, tmp_path / "b.onnx", recipe)
    assert sha256(tmp_path / "a.onnx") == sha256(tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").stat().st_size < source.stat().st_size
    expected, found = outputs(source, tiny_export)["logits"], outputs(tmp_path / "a.onnx", tiny_export)["logits"]
    assert found.dtype == np.float32
    assert 0 < np.abs(found - expected).max() < 0.05


def test_every_weight_is_accounted_for(source: Path, tmp_path: Path):
    record = quantize(source, tmp_path / "q.onnx", INT8)
    assert len(record["quantized"]) == 12
    assert set(record["kept"].values()) == {"Conv: not in op_types"}
    assert ops(tmp_path / "q.onnx")["MatMulInteger"] == 12


def test_an_excluded_node_stays_and_says_so(source: Path, tmp_path: Path):
    name = next(node.name for node in onnx.load(source).graph.node if node.op_type == "MatMul")
    record = quantize(source, tmp_path / "q.onnx", INT8.model_copy(update={"exclude_nodes": [name]}))
    assert record["kept"][name] == "MatMul: in exclude_nodes"
    assert name in {node.name for node in onnx.load(tmp_path / "q.onnx").graph.node}


def test_weight_type_and_per_channel_reach_the_graph(source: Path, tmp_path: Path):
    quantize(source, tmp_path / "q.onnx", INT8.model_copy(update={"weight_type": "QUInt8", "per_channel": False}))
    weights = {i.name: i for i in onnx.load(tmp_path / "q.onnx").graph.initializer}
    assert any(w.data_type == onnx.TensorProto.UINT8 and len(w.dims) == 2 for w in weights.values())
    assert all(len(w.dims) == 0 or w.dims[0] == 1 for n, w in weights.items() if n.endswith("_scale"))


def test_an_unknown_node_and_a_recipe_without_effect_are_refused(source: Path, tmp_path: Path):
    with pytest.raises(UserError, match="exclude_nodes: the graph has no node 'output'"):
        quantize(source, tmp_path / "q.onnx", INT8.model_copy(update={"exclude_nodes": ["output"]}))
    with pytest.raises(UserError, match="the recipe quantized no node of"):
        quantize(source, tmp_path / "q.onnx", INT8.model_copy(update={"op_types": ["Attention"]}))


def test_fp16_keeps_what_it_is_told_and_is_in_order(source: Path, tmp_path: Path):
    record = quantize(source, tmp_path / "h.onnx", FP16)
    assert list(record["kept"].values()) == ["Softmax: in keep_fp32_ops"]
    onnx.checker.check_model(tmp_path / "h.onnx", full_check=True)
