"""Slices of the last elements that count from the beginning: the same elements at every length."""

from __future__ import annotations

import numpy as np
import pytest

from stages.runtimes import last_of_axis
from tests.rewrites.graphs import difference, model, ops

SLICE = """
last (float[1,T,4] x) => (float[1,N,4] y)
  <int64[1] starts = {{{start}}}, int64[1] ends = {{{end}}}, int64[1] axes = {{1}}, int64[1] steps = {{{step}}}> {{
  y = Slice(x, starts, ends, axes, steps)
}}
"""
END = np.iinfo(np.int64).max


@pytest.mark.parametrize("start", [-1, -3])
def test_the_same_elements_at_every_length(start: int):
    given = model(SLICE.format(start=start, end=END, step=1))
    new = given.clone()
    assert last_of_axis.rewrite(new) == 1
    assert last_of_axis.rewrite(new) == 0
    for length in (3, 4, 9):
        assert difference(given, new, {"x": np.arange(4.0 * length, dtype=np.float32).reshape(1, length, 4)}) == 0


@pytest.mark.parametrize(
    ("start", "end", "step"),
    [pytest.param(2, END, 1, id="from the beginning"), pytest.param(-3, -1, 1, id="not to the end"), (-3, END, 2)],
)
def test_other_slices_stay(start: int, end: int, step: int):
    given = model(SLICE.format(start=start, end=end, step=step))
    assert last_of_axis.rewrite(given) == 0
    assert ops(given) == {"Slice": 1}
