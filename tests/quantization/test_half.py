"""fp16 holds what calibration data gives, bf16 what fp32 holds, and all else is in half precision."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import pytest

from stages.core import graphs
from stages.core.graphs import Feeds
from stages.core.params.recipes import BFloat16Recipe, Float16Recipe
from stages.quantize import quantize
from stages.runtimes import onnxruntime
from tests.quantization import emulation
from tests.quantization.test_counting import build
from tests.rewrites.graphs import numbers

FP16, BF16 = Float16Recipe(kind="float16"), BFloat16Recipe(kind="bfloat16")
RNG = np.random.default_rng(0)
WEIGHT = RNG.normal(size=(16, 16)).astype(np.float32)
FEEDS = {"x": RNG.normal(size=(1, 40, 16)).astype(np.float32)}
INNER = "a = MatMul(x, w)\n {}\n y = MatMul(c, w)"  # between two layers, where nothing counts


def differences(source: Path, place: Path, recipe: Float16Recipe | BFloat16Recipe, feeds: list[Feeds]) -> float:
    """Write the graph in half precision; the largest difference, as a share of the largest output."""
    quantize(source, place, recipe, feeds)
    (expected,), (found,) = onnxruntime.session(source).run(None, FEEDS), emulation.run(place, FEEDS)
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize(
    ("body", "constants"),
    [
        pytest.param("b = Mul(a, s)\n c = Div(b, s)", {"s": 30000}, id="values"),
        pytest.param("b = Mul(a, t)\n c = Mul(b, s)", {"s": 1e5, "t": 1e-3}, id="a-constant"),
        pytest.param("b = Mul(a, s)\n c = Div(b, s)", {"s": 1e-9}, id="a-small-constant"),
        pytest.param("b = Mul(a, s)\n d = Mul(b, b)\n e = Sqrt(d)\n c = Div(e, s)", {"s": 200}, id="squares"),
    ],
)
def test_what_exceeds_the_range_of_fp16_stays(body: str, constants: dict[str, float], tmp_path: Path):
    numbers = {"w": WEIGHT} | {name: np.array(number, np.float32) for name, number in constants.items()}
    source = build(tmp_path / "source.onnx", INNER.format(body), numbers)
    assert differences(source, tmp_path / "half.onnx", FP16, [FEEDS]) < 0.01
    assert differences(source, tmp_path / "half.onnx", BF16, []) < 0.03


def test_the_record_says_how_large_the_values_are(tmp_path: Path):
    body = INNER.format("b = Mul(a, s)\n c = Div(b, s)")
    source = build(tmp_path / "source.onnx", body, {"w": WEIGHT, "s": np.array(30000, np.float32)})
    record = quantize(source, tmp_path / "half.onnx", FP16, [FEEDS])
    assert record["kept"]["Mul1"].startswith("Mul: values up to 3.")
    assert record["kept"]["Mul1"].endswith("e+05 are near fp16's range")
    assert record["quantized"] == {"MatMul0": "MatMul -> FLOAT16", "MatMul3": "MatMul -> FLOAT16"}


def test_bf16_weights_are_rounded_once_and_not_clipped(tmp_path: Path):
    weight = np.where(RNG.random((16, 16)) < 0.5, 1e6, 1 + 2**-8 + 2**-12).astype(np.float32)
    source = build(tmp_path / "source.onnx", "y = MatMul(x, w)", {"w": weight})
    quantize(source, tmp_path / "half.onnx", BF16)
    (found,) = (numbers(value) for value in onnx_ir.load(tmp_path / "half.onnx").graph.initializers.values())
    # By way of fp16, 1e6 would be 65504, and the rest half way between two numbers, of which the even one is below.
    assert sorted(set(found.astype(np.float64).ravel().tolist())) == [1 + 2**-7, 999424]


def test_layers_are_in_half_precision_but_for_a_narrow_one_that_is_counted(tmp_path: Path):
    body = "a = MatMul(x, w)\n b = Relu(a)\n c = MatMul(b, w)\n d = Add(a, c)\n e = MatMul(d, v)\n"
    constants = {"w": WEIGHT, "v": WEIGHT[:, :1], "two": np.array([2]), "one": np.array([1])}
    source = build(
        tmp_path / "source.onnx", body + "f = Squeeze(e, two)\n s = CumSum(f, one)\n y = Floor(s)", constants
    )
    record = quantize(source, tmp_path / "half.onnx", FP16, [FEEDS])
    assert list(record["quantized"]) == ["MatMul0", "Relu1", "MatMul2", "Add3"]
    kinds = {value.name: str(value.dtype) for value in onnx_ir.load(tmp_path / "half.onnx").graph.initializers.values()}
    assert kinds == {"w.float16": "FLOAT16", "v": "FLOAT", "two": "INT64", "one": "INT64"}


def test_an_operator_without_the_kind_stays_whatever_it_gives(tmp_path: Path):
    body = INNER.format(
        "b = ConstantOfShape(s)\n z = RandomNormalLike<dtype=1, scale=1e-9>(a)\n d = Add(a, z)\n c = Add(d, b)"
    )
    source = build(tmp_path / "source.onnx", body, {"w": WEIGHT, "s": np.array([16])})
    assert differences(source, tmp_path / "half.onnx", FP16, [FEEDS]) < 0.01
    onnx.checker.check_model(tmp_path / "half.onnx", full_check=True)


@pytest.mark.parametrize(("inputs", "kind"), [("", "quantized"), (", , n", "kept")], ids=["alike", "unequal"])
def test_a_recurrence_of_unequal_lengths_stays(inputs: str, kind: str, tmp_path: Path):
    """TensorRT masks what is beyond a length with zeros in fp32."""
    body = INNER.format(f"h, g = GRU<hidden_size=16>(a, r, r{inputs})\n c = Squeeze(h, one)")
    constants = {"w": WEIGHT, "r": RNG.normal(size=(1, 48, 16)).astype(np.float32), "one": np.array([1])}
    constants |= {"n": np.ones(40, np.int32)} if inputs else {}
    record = quantize(build(tmp_path / "source.onnx", body, constants), tmp_path / "half.onnx", FP16, [FEEDS])
    assert "GRU1" in record[kind]


def test_large_weights_are_beside_the_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = build(tmp_path / "source.onnx", INNER.format("c = Relu(a)"), {"w": WEIGHT})
    quantize(source, tmp_path / "whole.onnx", FP16, [FEEDS])
    monkeypatch.setattr(graphs, "LARGE_TENSOR", 100)
    monkeypatch.setattr(graphs, "EXTERNAL_BYTES", 200)
    graphs.save(onnx_ir.load(source), tmp_path / "apart.onnx")
    quantize(tmp_path / "apart.onnx", tmp_path / "half.onnx", FP16, [FEEDS])
    assert (tmp_path / "half.onnx.data").stat().st_size >= WEIGHT.size * 2
    runs = [onnxruntime.session(tmp_path / name).run(["y"], FEEDS)[0] for name in ("half.onnx", "whole.onnx")]
    assert np.array_equal(*runs)
