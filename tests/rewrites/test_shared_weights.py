"""A weight that is read in two places, as SeACo's second decoder reads all of its, survives every rewrite of both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from stages.core import params
from stages.core.params.recipes import DynamicRecipe, StaticRecipe
from stages.quantize import quantize
from stages.rewrites import fresh_name, linear_chain, memory_block, sanm_memory, smooth, strided_conv
from tests.rewrites.graphs import difference, model
from tests.workspace import ROOT

RNG = np.random.default_rng(0)
RECIPES = params.load(ROOT / "params.yaml").quantize.recipes
INTEGERS = {
    name: np.array([value], dtype=np.int64) for name, value in (("one", 1), ("two", 2), ("start", -3), ("end", 2**62))
}


def sanm() -> ir.Model:
    text = """
memory (float[B,T,16] x, float[B,T,16] z, float[16,1,5] taps) => (float[B,T,16] y, float[B,T,16] w) {
  t = Transpose<perm = [0, 2, 1]>(x)
  m = Conv<group = 16, kernel_shape = [5], pads = [2, 2]>(t, taps)
  r = Transpose<perm = [0, 2, 1]>(m)
  y = Add(r, x)
  t2 = Transpose<perm = [0, 2, 1]>(z)
  m2 = Conv<group = 16, kernel_shape = [5], pads = [1, 3]>(t2, taps)
  r2 = Transpose<perm = [0, 2, 1]>(m2)
  w = Add(r2, z)
}
"""
    return model(text, taps=RNG.standard_normal((16, 1, 5)))


def fsmn() -> ir.Model:
    text = """
block (float[1,T,16] x, float[1,T,16] z, float[1,16,3,1] cache, float[16,1,4,1] taps, int64[1] one, int64[1] two,
       int64[1] start, int64[1] end) => (float[1,T,16] y, float[1,16,3,1] kept, float[1,T,16] w) {
  u = Unsqueeze(x, one)
  p = Transpose<perm = [0, 3, 2, 1]>(u)
  seen = Concat<axis = 2>(cache, p)
  kept = Slice(seen, start, end, two, one)
  m = Conv<group = 16, kernel_shape = [4, 1]>(seen, taps)
  s = Add(p, m)
  t = Transpose<perm = [0, 3, 2, 1]>(s)
  y = Squeeze(t, one)
  u2 = Unsqueeze(z, one)
  p2 = Transpose<perm = [0, 3, 2, 1]>(u2)
  seen2 = Concat<axis = 2>(kept, p2)
  kept2 = Slice(seen2, start, end, two, one)
  m2 = Conv<group = 16, kernel_shape = [4, 1]>(seen2, taps)
  s2 = Add(p2, m2)
  t2 = Transpose<perm = [0, 3, 2, 1]>(s2)
  w0 = Squeeze(t2, one)
  sum = ReduceSum(kept2)
  w = Add(w0, sum)
}
"""
    return model(text, taps=RNG.standard_normal((16, 1, 4, 1)), **INTEGERS)


def chain() -> ir.Model:
    """Two pairs of one first layer, and a third that shares its second layer with the first."""
    text = """
chain (float[1,T,16] x, float[16,14] a, float[14] b, float[14,16] c, float[16] d, float[16,14] e, float[14] f)
      => (float[1,T,16] y, float[1,T,16] w, float[1,T,16] v) {
  p = MatMul(x, a)
  q = Add(p, b)
  r = MatMul(q, c)
  y = Add(r, d)
  x2 = Tanh(y)
  p2 = MatMul(x2, a)
  q2 = Add(p2, b)
  r2 = MatMul(q2, c)
  w = Add(r2, d)
  x3 = Tanh(w)
  p3 = MatMul(x3, e)
  q3 = Add(p3, f)
  r3 = MatMul(q3, c)
  v = Add(r3, d)
}
"""
    shapes = {"a": (16, 14), "b": (14,), "c": (14, 16), "d": (16,), "e": (16, 14), "f": (14,)}
    return model(text, **{name: 0.2 * RNG.standard_normal(shape) for name, shape in shapes.items()})


def strided() -> ir.Model:
    text = """
layer (float[1,T,8] x, float[1,T,8] z, float[6,8,3] weight) => (float[1,N,6] y, float[1,M,6] w) {
  t = Transpose<perm = [0, 2, 1]>(x)
  c = Conv<kernel_shape = [3], strides = [2]>(t, weight)
  y = Transpose<perm = [0, 2, 1]>(c)
  t2 = Transpose<perm = [0, 2, 1]>(z)
  c2 = Conv<kernel_shape = [3], strides = [3]>(t2, weight)
  w = Transpose<perm = [0, 2, 1]>(c2)
}
"""
    return model(text, weight=RNG.standard_normal((6, 8, 3)))


FEEDS = {"x": (1, 20, 16), "z": (1, 20, 16), "cache": (1, 16, 3, 1)}


def feeds(given: ir.Model) -> dict[str, np.ndarray]:
    shapes = FEEDS | ({"x": (1, 20, 8), "z": (1, 20, 8)} if "weight" in given.graph.initializers else {})
    names = [str(value.name) for value in given.graph.inputs]
    return {name: RNG.standard_normal(shapes[name]).astype(np.float32) for name in names}


@pytest.mark.parametrize(
    ("make", "rewrite", "times"),
    [
        pytest.param(sanm, sanm_memory.rewrite, 2, id="sanm_memory"),
        pytest.param(fsmn, memory_block.rewrite, 2, id="memory_block"),
        pytest.param(chain, linear_chain.rewrite, 3, id="linear_chain"),
        pytest.param(strided, strided_conv.rewrite, 2, id="strided_conv"),
    ],
)
def test_both_readers_get_numbers_of_their_own_name(
    make: Callable[[], ir.Model], rewrite: Callable[[ir.Model], tuple[ir.Model, int]], times: int
):
    given = make()
    new, count = rewrite(given)
    assert count == times
    names = [value.name for value in new.graph.initializers.values()]
    assert len(names) == len(set(names))
    assert difference(given, new, feeds(given)) < 1e-4


NORMS = """
norms (float[1,T,16] x, float[16] scale, float[16] shift, float[16,32] w) => (float[1,T,32] y, float[1,T,32] z) {
  a = LayerNormalization(x, scale, shift)
  y = MatMul(a, w)
  b = Tanh(a2)
  a2 = LayerNormalization(x2, scale, shift)
  x2 = Tanh(x)
  z0 = MatMul(a2, w)
  z = Tanh(z0)
}
"""


def norms() -> ir.Model:
    text = NORMS.replace("  b = Tanh(a2)\n", "").split("\n")
    text[4:6] = [text[5], text[4]]  # a value is made before it is read
    return model("\n".join(text), scale=np.ones(16), shift=np.zeros(16), w=RNG.standard_normal((16, 32)))


def test_layers_that_share_a_norm_s_scale_and_a_weight_are_smoothed_apart():
    given = norms()
    largest = {name: RNG.uniform(0.5, 20, 16).astype(np.float32) for name in smooth.readers(given)}
    assert len(largest) == 2
    new, count = smooth.rewrite(given, largest, 0.5)
    assert count == 2
    assert difference(given, new, {"x": RNG.standard_normal((1, 9, 16)).astype(np.float32)}) < 1e-4


@pytest.mark.parametrize("recipe", ["int8", "int8_static"])
@pytest.mark.parametrize("make", [chain, norms])
def test_one_weight_of_two_layers_is_quantized(make: Callable[[], ir.Model], recipe: str, tmp_path: Path):
    given, settings = make(), RECIPES[recipe].model_copy(update={"min_outputs": 1})
    assert isinstance(settings, DynamicRecipe | StaticRecipe)
    for number, node in enumerate(given.graph):
        node.name = f"node_{number}"
    ir.save(given, tmp_path / "fp32.onnx")
    examples = [{"x": RNG.standard_normal((1, 9, 16)).astype(np.float32)} for _ in range(4)]
    record = quantize(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", settings, examples)
    assert len(record["quantized"]) == sum(node.op_type == "MatMul" for node in given.graph)
    assert difference(given, ir.load(tmp_path / "int8.onnx"), examples[0]) < 0.3  # of outputs up to 10


def test_a_fresh_name_is_none_that_a_value_has():
    given = sanm()
    taps = given.graph.initializers["taps"]
    assert fresh_name("new", taps) == "new"
    assert fresh_name("taps", taps) == "taps.2"  # an initializer's
    assert fresh_name("x", taps) == "x.2"  # an input's
    assert fresh_name("m", taps) == "m.2"  # a node's
