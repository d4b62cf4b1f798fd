"""FSMN's memory block gives the same numbers and caches along the last axis."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from stages.core.graphs import Feeds
from stages.rewrites import memory_block
from tests.rewrites.graphs import difference, model, ops

RNG = np.random.default_rng(0)
TAPS = RNG.standard_normal((16, 1, 4, 1))
INTEGERS = {
    name: np.array([value], dtype=np.int64) for name, value in (("one", 1), ("two", 2), ("start", -3), ("end", 2**62))
}
BLOCK = """
block (float[1,T,16] x, float[1,16,3,1] cache, float[16,1,4,1] taps, int64[1] one, int64[1] two, int64[1] start,
       int64[1] end) => (float[1,T,16] y, float[1,16,3,1] kept) {{
  u = Unsqueeze(x, one)
  p = Transpose<perm = [0, 3, 2, 1]>(u)
  seen = Concat<axis = 2>(cache, p)
  kept = Slice(seen, start, end, two, one)
  m = Conv<group = 16, {attributes}>(seen, taps)
  s = Add(p, m)
  t = Transpose<perm = [0, 3, 2, 1]>(s)
  y = Squeeze(t, one)
}}
"""


def block(attributes: str = "kernel_shape = [4, 1]") -> ir.Model:
    return model(BLOCK.format(attributes=attributes), taps=TAPS, **INTEGERS)


def feeds(frames: int) -> Feeds:
    shapes = {"x": (1, frames, 16), "cache": (1, 16, 3, 1)}
    return {name: RNG.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize("frames", [1, 2, 50])
def test_same_outputs_and_caches(frames: int):
    new, count = memory_block.rewrite(block())
    assert count == 1
    assert ops(new)["Add"] == 0
    assert difference(block(), new, feeds(frames)) < 1e-6


TWO_BLOCKS = """
blocks (float[1,T,16] x, float[1,16,3,1] cache0, float[1,16,3,1] cache1, float[16,1,4,1] taps0,
        float[16,1,4,1] taps1, float[16,8] first, float[8] bias, float[8,16] second,
        int64[1] one, int64[1] two, int64[1] start, int64[1] end)
       => (float[1,T,16] y, float[1,16,3,1] kept0, float[1,16,3,1] kept1) {
  u0 = Unsqueeze(x, one)
  p0 = Transpose<perm = [0, 3, 2, 1]>(u0)
  seen0 = Concat<axis = 2>(cache0, p0)
  kept0 = Slice(seen0, start, end, two, one)
  m0 = Conv<group = 16, kernel_shape = [4, 1]>(seen0, taps0)
  s0 = Add(p0, m0)
  t0 = Transpose<perm = [0, 3, 2, 1]>(s0)
  y0 = Squeeze(t0, one)
  wide = MatMul(y0, first)
  biased = Add(wide, bias)
  relu = Relu(biased)
  x1 = MatMul(relu, second)
  u1 = Unsqueeze(x1, one)
  p1 = Transpose<perm = [0, 3, 2, 1]>(u1)
  seen1 = Concat<axis = 2>(cache1, p1)
  kept1 = Slice(seen1, start, end, two, one)
  m1 = Conv<group = 16, kernel_shape = [4, 1]>(seen1, taps1)
  s1 = Add(p1, m1)
  t1 = Transpose<perm = [0, 3, 2, 1]>(s1)
  y = Squeeze(t1, one)
}
"""


@pytest.mark.parametrize("frames", [1, 50])
def test_between_blocks_nothing_is_reshaped(frames: int):
    shapes = {"taps1": TAPS.shape, "first": (16, 8), "bias": (8,), "second": (8, 16)}
    weights = {name: 0.1 * RNG.standard_normal(shape) for name, shape in shapes.items()}
    given = model(TWO_BLOCKS, taps0=TAPS, **weights, **INTEGERS)
    new, count = memory_block.rewrite(given)
    assert count == 2
    assert (ops(new)["Unsqueeze"], ops(new)["Squeeze"]) == (1, 1)
    caches = {name: feeds(frames)["cache"] for name in ("cache0", "cache1")}
    assert difference(given, new, {"x": feeds(frames)["x"], **caches}) < 1e-5


def test_the_model_that_was_given_is_left_alone():
    given = block()
    memory_block.rewrite(given)
    assert ops(given) == ops(block())


def test_another_convolution_is_not_taken_for_a_memory():
    assert memory_block.rewrite(block("kernel_shape = [4, 1], dilations = [2, 1], pads = [3, 0, 0, 0]"))[1] == 0
