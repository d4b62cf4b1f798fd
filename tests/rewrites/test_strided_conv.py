"""Strided convolutions as products over frames: the same numbers for every length, and nothing transposed between."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from stages.rewrites import gelu, strided_conv
from tests.rewrites.graphs import difference, model, ops

RNG = np.random.default_rng(0)
LAYER = """
layer (float[1,T,8] x, float[6,8,{taps}] weight) => (float[1,N,6] y) {{
  t = Transpose<perm = [0, 2, 1]>(x)
  c = Conv<{attributes}>(t, weight)
  y = Transpose<perm = [0, 2, 1]>(c)
}}
"""
ACTIVATED = """
layer (float[1,T,8] x, float[6,8,3] weight, float root, float one, float half) => (float[1,N,6] y) {
  t = Transpose<perm = [0, 2, 1]>(x)
  d = Div(t, root)
  e = Erf(d)
  a = Add(e, one)
  h = Mul(half, a)
  g = Mul(t, h)
  c = Conv<strides = [2]>(g, weight)
  y = Transpose<perm = [0, 2, 1]>(c)
}
"""


def layer(taps: int, attributes: str) -> ir.Model:
    return model(LAYER.format(taps=taps, attributes=attributes), weight=RNG.standard_normal((6, 8, taps)))


def frames(count: int) -> np.ndarray:
    return RNG.standard_normal((1, count, 8)).astype(np.float32)


@pytest.mark.parametrize("taps", [2, 3, 4])
@pytest.mark.parametrize("hop", [2, 3])
def test_same_outputs_for_every_length(taps: int, hop: int):
    given = layer(taps, f"strides = [{hop}]")
    new, count = strided_conv.rewrite(given)
    assert count == (taps - hop in {0, 1})
    assert ops(new)["MatMul"] == count
    for length in range(taps, taps + 3 * hop):
        assert difference(given, new, {"x": frames(length)}) < 1e-5


@pytest.mark.parametrize(
    "attributes", ["strides = [2], pads = [1, 1]", "strides = [2], dilations = [2]", "strides = [2], group = 2"]
)
def test_other_convolutions_stay(attributes: str):
    given = layer(3, attributes)
    if "group" in attributes:
        given.graph.initializers["weight"].const_value = ir.tensor(RNG.standard_normal((6, 4, 3)).astype(np.float32))
    assert strided_conv.rewrite(given)[1] == 0


def test_an_activation_before_it_needs_no_transposing():
    given = model(
        ACTIVATED, weight=RNG.standard_normal((6, 8, 3)), root=np.array(2**0.5), one=np.array(1.0), half=np.array(0.5)
    )
    new, count = strided_conv.rewrite(gelu.rewrite(given)[0])
    assert count == 1
    assert ops(new)["Transpose"] == 0
    assert all(value.dtype is not None for node in new.graph for value in node.outputs)  # the quantizer asks
    assert difference(given, new, {"x": frames(9)}) < 1e-5
