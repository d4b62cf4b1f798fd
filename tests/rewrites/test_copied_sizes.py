"""Reshapes with a constant in place of a computed shape: the same numbers for every length that is kept."""

from __future__ import annotations

import numpy as np
import pytest

from stages.rewrites import copied_sizes
from tests.rewrites.graphs import difference, model, ops

HEADS = """
split (float[B,T,8] x) => (float[B,T,2,4] y) <int64[1] width = {{2}}, int64[1] rest = {{{rest}}}> {{
  size = Shape<start = 0, end = {end}>(x)
  sizes = Concat<axis = 0>(size, width, rest)
  y = Reshape{attributes}(x, sizes)
}}
"""
MERGED = """
merge (float[B,T,8] x, int64[1] rows) => (float[R,8] y) <int64[1] width = {8}> {
  sizes = Concat<axis = 0>(rows, width)
  y = Reshape(x, sizes)
}
"""


@pytest.mark.parametrize("attributes", ["", "<allowzero = 1>"])
def test_sizes_of_the_input_are_copied_for_every_length(attributes: str):
    given = model(HEADS.format(end=2, rest=4, attributes=attributes))
    new, count = copied_sizes.rewrite(given)
    assert count == 1
    assert ops(new) == {"Reshape": 1}
    for batch, length in ((1, 1), (2, 5), (1, 0)):
        feeds = {"x": np.random.default_rng(0).standard_normal((batch, length, 8)).astype(np.float32)}
        assert difference(given, new, feeds) == 0


def test_a_size_that_the_input_has_nowhere_is_still_computed():
    given = model(MERGED)
    new, count = copied_sizes.rewrite(given)
    assert count == 0
    assert ops(new) == ops(given)
