"""What counts and places comes out of half precision as of fp32, however a graph does it; what does not is in half."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from stages.core.params.recipes import BFloat16Recipe, Float16Recipe
from stages.quantize import quantize
from stages.runtimes import onnxruntime
from tests.quantization import emulation

FP16, BF16 = Float16Recipe(kind="float16"), BFloat16Recipe(kind="bfloat16")
LONG = 2601  # frames: more than both kinds can count

# How graphs count or place, of an input x (1, N, 16) whose values are 0 and 1 and weights w (16, 1) of 1/4.
WEIGHTS = "p = MatMul(x, w)\n a = Squeeze(p, two)\n"
POSITIONS = "s = Shape(x)\n n = Gather(s, one)\n k = Squeeze(n)\n i = Range(zero, k, step)\n f = Cast<to=1>(i)\n"
GRAPHS = {
    "running sum": WEIGHTS + "c = CumSum(a, one)\n y = Floor(c)",
    "number of tokens": WEIGHTS + "c = ReduceSum(a, one)\n r = Round(c)\n t = Cast<to=6>(r)\n y = Cast<to=1>(t)",
    "sum under a mask": WEIGHTS + POSITIONS + "e = Unsqueeze(i, one)\n l = LessOrEqual(e, i)\n m = Cast<to=1>(l)\n"
    "u = Transpose(m)\n c = MatMul(a, u)\n y = Floor(c)",
    "where it fires": WEIGHTS + "c = CumSum(a, one)\n l = Mod<fmod=1>(c, four)\n g = Less(l, unit)\n y = Cast<to=1>(g)",
    "how long": POSITIONS + "g = Less(i, k)\n m = Cast<to=1>(g)\n c = ReduceSum<keepdims=1>(m)\n y = Identity(c)",
    "sines": POSITIONS + "q = Mul(f, unit)\n y = Sin(q)",
    "frequencies by a product": POSITIONS + "e = Unsqueeze(f, one)\n q = MatMul(e, rates)\n y = Cos(q)",
    "frequencies by Einsum": POSITIONS + 'q = Einsum<equation="i,j->ij">(f, flat)\n y = Cos(q)',
    "distances": POSITIONS + "e = Unsqueeze(f, one)\n d = Sub(e, f)\n h = Abs(d)\n v = Neg(h)\n y = Mul(v, unit)",
    "powers": POSITIONS + "e = Sub(f, four)\n h = Exp(e)\n v = Log(h)\n q = Mul(e, e)\n y = Sin(q)",
    "floats from the start": POSITIONS + "l = Cast<to=1>(k)\n r = Range(origin, l, unit)\n y = Sin(r)",
}
CONSTANTS = {
    "w": np.full((16, 1), 1 / 4, np.float32),
    "one": np.array([1]),
    "two": np.array([2]),
    "zero": np.array(0),
    "step": np.array(1),
    "origin": np.array(0, np.float32),
    "unit": np.array(1, np.float32),
    "four": np.array(4, np.float32),
    "rates": np.array([[1, 0.1, 0.01]], np.float32),
    "flat": np.array([1, 0.1, 0.01], np.float32),
}


def build(place: Path, body: str, constants: dict[str, np.ndarray], output: str = "y") -> Path:
    """Write the graph of a body between an input x (1, N, 16) and an output."""
    text = f'<ir_version: 10, opset_import: ["" : 18]> g (float[1,N,16] x) => (float {output}) {{ {body} }}'
    model = onnx.parser.parse_model(text)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    used = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(v, k) for k, v in constants.items() if k in used)
    for number, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}{number}"
    onnx.save(model, place)
    return place


@pytest.mark.parametrize("recipe", [pytest.param(FP16, id="fp16"), pytest.param(BF16, id="bf16")])
@pytest.mark.parametrize("body", [pytest.param(body, id=name.replace(" ", "-")) for name, body in GRAPHS.items()])
def test_what_counts_or_places_is_as_in_fp32(body: str, recipe: Float16Recipe | BFloat16Recipe, tmp_path: Path):
    feeds = {"x": (np.random.default_rng(0).random((1, LONG, 16)) < 0.5).astype(np.float32)}
    source = build(tmp_path / "source.onnx", body, CONSTANTS)
    (expected,) = onnxruntime.session(source).run(None, feeds)
    quantize(source, tmp_path / "half.onnx", recipe, [feeds])
    (found,) = emulation.run(tmp_path / "half.onnx", feeds)
    assert np.array_equal(found, expected)
