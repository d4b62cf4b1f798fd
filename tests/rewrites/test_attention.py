"""Attention as one operator: the same numbers for padded batches, and left alone where more than its result is read."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from stages.rewrites import attention
from tests.rewrites.graphs import difference, model, ops

RNG = np.random.default_rng(0)
ATTENTION = """
attention (float[B,Q,8] q, float[B,K,8] k, float[B,K,8] v, float[B,1,1,K] inside, int64[4] heads, int64[3] whole,
           float scale, float blocked) => ({outputs}) {{
  qr = Reshape(q, heads)
  qt = Transpose<perm = [0, 2, 1, 3]>(qr)
  qs = Mul(qt, scale)
  kr = Reshape(k, heads)
  kt = Transpose<perm = [0, 2, 3, 1]>(kr)
  vr = Reshape(v, heads)
  vt = Transpose<perm = [0, 2, 1, 3]>(vr)
  s = MatMul(qs, kt)
  {scores}
  w = Softmax<axis = -1>(scores)
  c = MatMul(w, vt)
  ct = Transpose<perm = [0, 2, 1, 3]>(c)
  y = Reshape(ct, whole)
}}
"""
MASKED = "mask = Mul(inside, blocked)\n scores = Add(s, mask)"
RESULT = "float[B,Q,8] y"


def network(scores: str, outputs: str = RESULT, blocked: float = attention.BLOCKED) -> ir.Model:
    integers = {"heads": [0, 0, 2, 4], "whole": [0, 0, 8]}
    weights = {name: np.array(value, dtype=np.int64) for name, value in integers.items()}
    text = ATTENTION.format(scores=scores, outputs=outputs)
    return model(text, scale=np.array(0.5), blocked=np.array(blocked), **weights)


def feeds(queries: int) -> dict[str, np.ndarray]:
    """A batch of 2 over 6 keys, of which the second row has 4."""
    shapes = {"q": (2, queries, 8), "k": (2, 6, 8), "v": (2, 6, 8)}
    inside = (np.arange(6) >= np.array([6, 4])[:, None]).astype(np.float32)[:, None, None]
    return {name: RNG.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()} | {"inside": inside}


@pytest.mark.parametrize("queries", [1, 6])
@pytest.mark.parametrize("scores", [pytest.param(MASKED, id="masked"), pytest.param("scores = Identity(s)", id="all")])
def test_same_outputs(scores: str, queries: int):
    given = network(scores)
    new, count = attention.rewrite(given)
    assert count == 1
    assert ops(new)["MultiHeadAttention"] == 1
    assert ops(new)["Softmax"] == 0
    assert difference(given, new, feeds(queries)) < 1e-6


def test_weights_that_are_read_keep_the_attention_as_it_is():
    assert attention.rewrite(network(MASKED, f"{RESULT}, float[B,2,Q,K] w"))[1] == 0


def test_a_mask_of_another_number_is_not_taken_for_one():
    assert attention.rewrite(network(MASKED, blocked=-3.0))[1] == 0


PACKED = """
attention (float[1,T,24] x, float[1,2,T,T] bias, int64[5] heads, int64[3] whole, float scale, int64 first, int64 second,
           int64 third) => (float[1,T,8] y) {
  h = Reshape(x, heads)
  t = Transpose<perm = [2, 0, 3, 1, 4]>(h)
  q = Gather<axis = 0>(t, first)
  k = Gather<axis = 0>(t, second)
  v = Gather<axis = 0>(t, third)
  s = Mul(q, scale)
  kt = Transpose<perm = [0, 1, 3, 2]>(k)
  m = MatMul(s, kt)
  b = Add(m, bias)
  w = Softmax<axis = -1>(b)
  c = MatMul(w, v)
  ct = Transpose<perm = [0, 2, 1, 3]>(c)
  y = Reshape(ct, whole)
}
"""


@pytest.mark.parametrize(("order", "fused"), [((0, 1, 2), 1), ((1, 0, 2), 0)])
def test_a_packed_attention_with_biases(order: tuple[int, ...], fused: int):
    places = {name: np.array(place) for name, place in zip(("first", "second", "third"), order, strict=True)}
    shapes = {"heads": np.array([1, -1, 3, 2, 4]), "whole": np.array([1, -1, 8])}
    given = model(PACKED, scale=np.array(0.5), **shapes, **places)
    new, count = attention.rewrite(given)
    assert count == ops(new)["MultiHeadAttention"] == fused
    x, bias = (RNG.standard_normal(shape).astype(np.float32) for shape in ((1, 7, 24), (1, 2, 7, 7)))
    assert difference(given, new, {"x": x, "bias": bias}) < 1e-6
