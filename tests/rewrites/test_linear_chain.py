"""Two linear layers become one where that is not dearer."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from stages.rewrites import linear_chain
from tests.rewrites.graphs import difference, model, ops

RNG = np.random.default_rng(0)
CHAIN = """
chain (float[1,T,{inputs}] x, float[{inputs},{between}] a, float[{between}] b, float[{between},{outputs}] c,
       float[{outputs}] d) => (float[1,T,{outputs}] y) {{
  p = MatMul(x, a)
  q = Add(p, b)
  r = MatMul(q, c)
  y = Add(r, d)
}}
"""


def chain(inputs: int, between: int, outputs: int) -> ir.Model:
    shapes = {"a": (inputs, between), "b": (between,), "c": (between, outputs), "d": (outputs,)}
    text = CHAIN.format(inputs=inputs, between=between, outputs=outputs)
    return model(text, **{name: RNG.standard_normal(shape) for name, shape in shapes.items()})


@pytest.mark.parametrize("sizes", [pytest.param((40, 14, 25), id="a-little-dearer"), pytest.param((25, 14, 24))])
def test_one_layer_with_the_same_outputs(sizes: tuple[int, int, int]):
    given = chain(*sizes)
    new, count = linear_chain.rewrite(given)
    assert count == 1
    assert ops(new) == {"MatMul": 1, "Add": 1}
    assert difference(given, new, {"x": RNG.standard_normal((1, 7, sizes[0])).astype(np.float32)}) < 1e-4


def test_a_bottleneck_stays():
    assert linear_chain.rewrite(chain(40, 4, 40))[1] == 0
