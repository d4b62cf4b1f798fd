"""A recipe does what it says and records what it left alone, and why."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import pytest

from stages.core import graphs
from stages.core.errors import UserError
from stages.core.files import sha256
from stages.core.graphs import Feeds, example_feeds
from stages.core.params.recipes import BFloat16Recipe, DynamicRecipe, Float16Recipe, Recipe, StaticRecipe
from stages.quantize import check_effect, check_excluded, quantize
from stages.runtimes import onnxruntime

INT8 = DynamicRecipe(
    kind="dynamic",
    weight_type="QInt8",
    per_channel=True,
    reduce_range=False,
    op_types=["MatMul", "Gemm"],
    exclude_nodes=[],
)
STATIC = StaticRecipe(
    kind="static",
    weight_type="QInt8",
    activation_type="QUInt8",
    symmetric=False,
    per_channel=True,
    reduce_range=True,
    op_types=["MatMul", "Gemm"],
    calibration="minmax",
)
FP16 = Float16Recipe(kind="float16")


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
    first, again = (tmp_path / folder / "model.onnx" for folder in ("first", "again"))
    for place in (first, again):
        place.parent.mkdir()
        quantize(source, place, recipe)
    assert graphs.digests(first.parent) == graphs.digests(again.parent)
    assert graphs.size(first.parent) < source.stat().st_size
    expected, found = outputs(source, tiny_export)["logits"], outputs(first, tiny_export)["logits"]
    assert found.dtype == np.float32
    assert 0 < np.abs(found - expected).max() < 0.05


@pytest.mark.parametrize("calibration", ["minmax", "percentile", "entropy"])
def test_static_scales_come_from_what_the_graph_was_fed(source: Path, tiny_export: Path, tmp_path: Path, calibration):
    graph = graphs.read(tiny_export).graphs["model"]
    feeds = [example_feeds(graph, {"feats_length": frames}, seed=frames) for frames in (20, 50, 33)]
    record = quantize(source, tmp_path / "q.onnx", STATIC.model_copy(update={"calibration": calibration}), feeds)
    assert len(record["quantized"]) == 12
    assert ops(tmp_path / "q.onnx")["QuantizeLinear"] > 0
    expected, found = outputs(source, tiny_export)["logits"], outputs(tmp_path / "q.onnx", tiny_export)["logits"]
    assert 0 < np.abs(found - expected).max() < 0.1
    louder = [{name: 4 * value for name, value in fed.items()} for fed in feeds]
    (tmp_path / "louder").mkdir()
    quantize(source, tmp_path / "louder" / "q.onnx", STATIC.model_copy(update={"calibration": calibration}), louder)
    assert sha256(tmp_path / "q.onnx") != sha256(tmp_path / "louder" / "q.onnx")


def test_what_tensorrt_gets_has_no_zero_points_and_no_int32(source: Path, tiny_export: Path, tmp_path: Path):
    recipe = STATIC.model_copy(update={"activation_type": "QInt8", "symmetric": True, "op_types": ["MatMul", "Conv"]})
    graph = graphs.read(tiny_export).graphs["model"]
    quantize(source, tmp_path / "q.onnx", recipe, [example_feeds(graph, {"feats_length": 50}, seed=1)])
    tensors = onnx.load(tmp_path / "q.onnx").graph.initializer
    zeros = [onnx.numpy_helper.to_array(t) for t in tensors if "zero_point" in t.name]
    assert zeros
    assert not any(zero.any() for zero in zeros)
    assert not any(t.data_type == onnx.TensorProto.INT32 for t in tensors)


def test_bf16_between_fp32_inputs_and_outputs(source: Path, tmp_path: Path):
    quantize(source, tmp_path / "b.onnx", BFloat16Recipe(kind="bfloat16"))
    graph = onnx.load(tmp_path / "b.onnx").graph
    assert {v.type.tensor_type.elem_type for v in (*graph.input, *graph.output)} == {onnx.TensorProto.FLOAT}
    kinds = {i.data_type for i in graph.initializer if len(i.dims) > 1}
    assert kinds == {onnx.TensorProto.BFLOAT16}


def test_reduced_weights_overflow_no_sum_of_two_products_and_keep_more_than_seven_bits(source: Path, tmp_path: Path):
    record = quantize(source, tmp_path / "q.onnx", INT8.model_copy(update={"reduce_range": True}))
    tensors = [onnx.numpy_helper.to_array(t) for t in onnx.load(tmp_path / "q.onnx").graph.initializer]
    weights = [t.astype(int) for t in tensors if t.dtype == np.int8 and t.ndim == 2]
    assert len(weights) == len(record["quantized"])
    for weight in weights:
        pairs = weight[: len(weight) // 2 * 2].reshape(-1, 2, weight.shape[1]).sum(axis=1)
        assert np.abs(255 * pairs).max() < 2**15
        assert np.abs(weight).max(axis=0).mean() > 64  # of 7 bits the largest


def test_gemm_can_be_excluded_and_its_weights_are_reduced_along_their_inputs(tmp_path: Path):
    weight = np.random.default_rng(0).normal(size=(8, 31)).astype(np.float32)  # (outputs, inputs)
    node = onnx.helper.make_node("Gemm", ["x", "w"], ["y"], name="gemm", transB=1)
    shapes: dict[str, list[str | int]] = {"x": ["n", 31], "y": ["n", 8]}
    x, y = (onnx.helper.make_tensor_value_info(k, onnx.TensorProto.FLOAT, v) for k, v in shapes.items())
    graph = onnx.helper.make_graph([node], "g", [x], [y], [onnx.numpy_helper.from_array(weight, "w")])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, tmp_path / "source.onnx")
    excluded = INT8.model_copy(update={"exclude_nodes": ["gemm"]})
    record = quantize(tmp_path / "source.onnx", tmp_path / "q.onnx", excluded)
    assert record == {"quantized": {}, "kept": {"gemm": "Gemm: in exclude_nodes"}}
    assert not ops(tmp_path / "q.onnx")["MatMulInteger"]
    quantize(tmp_path / "source.onnx", tmp_path / "q.onnx", INT8.model_copy(update={"reduce_range": True}))
    tensors = [onnx.numpy_helper.to_array(t) for t in onnx.load(tmp_path / "q.onnx").graph.initializer]
    (quantized,) = (t.astype(int) for t in tensors if t.dtype == np.int8 and t.shape == (31, 8))
    assert np.abs(quantized[:30].reshape(15, 2, 8).sum(axis=1)).max() <= 128
    (scale,) = (t for t in tensors if t.dtype == np.float32 and t.shape == (8,))
    assert np.abs(quantized * scale - weight.T).max() <= scale.max() / 2 * 1.001


def test_layers_with_few_outputs_stay_and_say_so(source: Path, tmp_path: Path):
    model = onnx.load(source)
    shapes = {i.name: i.dims for i in model.graph.initializer}
    narrow = {n.name for n in model.graph.node if n.op_type == "MatMul" and shapes[n.input[1]][-1] < 24}
    record = quantize(source, tmp_path / "q.onnx", INT8.model_copy(update={"min_outputs": 24}))
    kept = {name for name, why in record["kept"].items() if why == "MatMul: fewer than 24 outputs"}
    assert narrow
    assert kept == narrow


@pytest.mark.parametrize(("least", "kept"), [(0, set()), (10, {"depthwise"}), (20, {"depthwise", "pointwise"})])
def test_convolutions_that_multiply_little_for_each_value_stay_and_say_so(least: float, kept: set[str], tmp_path: Path):
    shapes = {"square": (32, 32, 3, 3), "pointwise": (32, 32, 1, 1), "depthwise": (32, 1, 3, 3)}
    nodes = [
        onnx.helper.make_node("Conv", ["x", f"{name}.w"], [name], name, group=32 // shape[1], auto_pad="SAME_UPPER")
        for name, shape in shapes.items()
    ]
    weights = [
        onnx.numpy_helper.from_array(np.random.default_rng(0).normal(size=shape).astype(np.float32), f"{name}.w")
        for name, shape in shapes.items()
    ]
    x, *outputs = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 32, 8, 8]) for name in ("x", *shapes)
    )
    graph = onnx.helper.make_graph(nodes, "g", [x], outputs, weights)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, tmp_path / "source.onnx")
    recipe = STATIC.model_copy(update={"op_types": ["Conv"], "min_intensity": least})
    feeds = [{"x": np.random.default_rng(n).normal(size=(1, 32, 8, 8)).astype(np.float32)} for n in range(2)]
    record = quantize(tmp_path / "source.onnx", tmp_path / "q.onnx", recipe, feeds)
    assert record["kept"] == dict.fromkeys(kept, f"Conv: fewer than {least:g} multiplications for each value")
    assert set(record["quantized"]) == set(shapes) - kept


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


def test_an_unknown_node_and_a_recipe_without_effect_are_refused(source: Path, tiny_export: Path, tmp_path: Path):
    with pytest.raises(UserError, match=r"exclude_nodes: .* has no node 'output'"):
        check_excluded(INT8.model_copy(update={"exclude_nodes": ["output"]}), tiny_export, graphs.read(tiny_export))
    nothing = quantize(source, tmp_path / "q.onnx", INT8.model_copy(update={"op_types": ["Attention"]}))
    with pytest.raises(UserError, match="the recipe quantized no node"):
        check_effect(tiny_export, {"model": nothing})
    check_effect(tiny_export, {"model": nothing, "another": quantize(source, tmp_path / "q.onnx", INT8)})


def test_half_precision_is_in_order_and_says_what_became_of_each_node(source: Path, tmp_path: Path):
    record = quantize(source, tmp_path / "h.onnx", FP16)
    assert record["kept"]["node_softmax"].startswith("Softmax: ")
    assert Counter(record["quantized"].values())["MatMul -> FLOAT16"] == 12
    onnx.checker.check_model(tmp_path / "h.onnx", full_check=True)


@pytest.fixture
def lookup(tmp_path: Path) -> tuple[Path, Feeds]:
    """A table of 300 rows that is looked up and multiplied by a matrix, and one of 200 that is an output too."""
    rng = np.random.default_rng(0)
    weights = {"large": (300, 16), "small": (200, 16), "matrix": (16, 16)}
    values = [onnx.numpy_helper.from_array(rng.normal(size=s).astype(np.float32), n) for n, s in weights.items()]
    text = """<ir_version: 10, opset_import: ["" : 18]>
    g (int32[1,N] ids) => (float[1,N,16] y, float[200,16] z) {
      one = Gather(large, ids)
      two = Gather(small, ids)
      sum = Add(one, two)
      y = MatMul(sum, matrix)
      z = Neg(small)
    }"""
    model = onnx.parser.parse_model(text)
    model.graph.initializer.extend(values)
    for node, name in zip(model.graph.node, ("large", "small", "sum", "product", "negative"), strict=True):
        node.name = name
    onnx.save(model, tmp_path / "lookup.onnx")
    return tmp_path / "lookup.onnx", {"ids": np.arange(0, 200, 3, dtype=np.int32)[None]}


@pytest.mark.parametrize("recipe", [pytest.param(INT8, id="dynamic"), pytest.param(STATIC, id="static")])
def test_large_tables_that_are_looked_up_become_int8(lookup: tuple[Path, Feeds], tmp_path: Path, recipe: Recipe):
    source, feeds = lookup
    record = quantize(source, tmp_path / "q.onnx", recipe.model_copy(update={"embedding_rows": 100}), [feeds])
    assert record["quantized"] == {"large": "Gather -> INT8 by row", "product": "MatMul -> INT8"}
    assert record["kept"]["small"] == "Gather: its table is not only looked up by row"
    sizes = {i.name: (i.data_type, list(i.dims)) for i in onnx.load(tmp_path / "q.onnx").graph.initializer}
    assert (onnx.TensorProto.INT8, [300, 16]) in sizes.values()
    assert (onnx.TensorProto.FLOAT, [300, 16]) not in sizes.values()
    expected, found = (onnxruntime.session(path).run(["y"], feeds)[0] for path in (source, tmp_path / "q.onnx"))
    assert 0 < np.abs(found - expected).max() < 0.03 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        pytest.param({}, "not in op_types", id="not asked for"),
        pytest.param({"embedding_rows": 301}, "fewer than 301 rows", id="too few rows"),
        pytest.param({"embedding_rows": 100, "exclude_nodes": ["large"]}, "in exclude_nodes", id="excluded"),
    ],
)
def test_other_tables_stay_and_say_so(lookup: tuple[Path, Feeds], tmp_path: Path, changes: dict[str, object], why: str):
    record = quantize(lookup[0], tmp_path / "q.onnx", INT8.model_copy(update=changes))
    assert record["kept"]["large"] == f"Gather: {why}"
    assert record["quantized"] == {"product": "MatMul -> INT8"}


def test_a_graph_that_becomes_small_needs_no_file_of_the_large_one(
    lookup: tuple[Path, Feeds], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(graphs, "LARGE_TENSOR", 1000)
    monkeypatch.setattr(graphs, "EXTERNAL_BYTES", 25_000)  # between what the tables are in fp32 and in INT8
    (tmp_path / "apart").mkdir()
    graphs.save(onnx_ir.load(lookup[0]), tmp_path / "apart" / "g.onnx")
    assert (tmp_path / "apart" / "g.onnx.data").is_file()
    recipe = INT8.model_copy(update={"embedding_rows": 100})
    quantize(tmp_path / "apart" / "g.onnx", tmp_path / "q.onnx", recipe)
    quantize(lookup[0], tmp_path / "whole.onnx", recipe)
    runs = [onnxruntime.session(tmp_path / name).run(["y"], lookup[1])[0] for name in ("q.onnx", "whole.onnx")]
    assert np.array_equal(*runs)


@pytest.mark.parametrize("recipe", [pytest.param(INT8, id="int8"), pytest.param(FP16, id="fp16")])
@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: data[: len(data) // 2], id="truncated"),
        pytest.param(lambda data: data.replace(b"Softmax", b"Sofhmax"), id="unknown-operator"),
        pytest.param(lambda data: data.replace(b"logits", b"1ogits"), id="another-output"),
    ],
)
def test_a_broken_source_is_one_line_that_names_it(tiny_export: Path, tmp_path: Path, recipe: Recipe, damage):
    folder = Path(shutil.copytree(tiny_export, tmp_path / "export"))
    broken = folder / "model.onnx"
    broken.write_bytes(damage(broken.read_bytes()))
    with pytest.raises(UserError, match=r"^[^\n]*export/model\.onnx[^\n]*$"):
        quantize(broken, tmp_path / "q.onnx", recipe)
