"""GELU as one operator: the same numbers, and only of its own constants."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from stages.rewrites import gelu
from tests.rewrites.graphs import difference, model, ops

GELU = """
gelu (float[1,T,8] x, float root, float one, float half) => (float[1,T,8] y) {
  d = Div(x, root)
  e = Erf(d)
  a = Add(e, one)
  h = Mul(half, a)
  y = Mul(x, h)
}
"""


def network(half: float = 0.5, root: float = 2**0.5) -> ir.Model:
    return model(GELU, root=np.array(root), one=np.array(1.0), half=np.array(half))


def test_same_outputs():
    given = network()
    new, count = gelu.rewrite(given)
    assert count == 1
    assert ops(new) == {"Gelu": 1}
    x = 3 * np.random.default_rng(0).standard_normal((1, 50, 8)).astype(np.float32)
    assert difference(given, new, {"x": x}) < 1e-5


@pytest.mark.parametrize("constants", [{"half": 0.25}, {"root": 2.0}])
def test_another_function_is_not_taken_for_it(constants: dict[str, float]):
    assert gelu.rewrite(network(**constants))[1] == 0
