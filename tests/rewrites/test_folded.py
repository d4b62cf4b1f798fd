"""What does not depend on the inputs is computed once."""

from __future__ import annotations

import numpy as np

from stages.rewrites import folded
from tests.rewrites.graphs import difference, model, ops

TEXT = """
dead (float[1,T,3] x, float[3] a, float[3] b) => (float[1,T,3] y) {
  s = Shape(x)
  ab = Mul(a, b)
  one = Add(x, ab)
  same = Add(x, ab)
  y = Mul(one, same)
}
"""


def test_constants_and_what_is_computed_twice_or_for_nobody_go():
    given = model(TEXT, a=np.arange(3.0), b=np.arange(3.0))
    new, count = folded.rewrite(given)
    assert count == 3
    assert ops(new) == {"Add": 1, "Mul": 1}
    assert difference(given, new, {"x": np.ones((1, 2, 3), np.float32)}) == 0
