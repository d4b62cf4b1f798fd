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
    integers = {"one": [1], "two": [2], "start": [-3], "end": [2**62]}
    return model(
        BLOCK.format(attributes=attributes), taps=TAPS, **{k: np.array(v, dtype=np.int64) for k, v in integers.items()}
    )


def feeds(frames: int) -> Feeds:
    shapes = {"x": (1, frames, 16), "cache": (1, 16, 3, 1)}
    return {name: RNG.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize("frames", [1, 2, 50])
def test_same_outputs_and_caches(frames: int):
    new, count = memory_block.rewrite(block())
    assert count == 1
    assert ops(new)["Add"] == 0
    assert difference(block(), new, feeds(frames)) < 1e-6


def test_the_model_that_was_given_is_left_alone():
    given = block()
    memory_block.rewrite(given)
    assert ops(given) == ops(block())


def test_another_convolution_is_not_taken_for_a_memory():
    assert memory_block.rewrite(block("kernel_shape = [4, 1], dilations = [2, 1], pads = [3, 0, 0, 0]"))[1] == 0
