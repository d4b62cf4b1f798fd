"""SAN-M's memory gives the same numbers as an image of height 1."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from stages.rewrites import sanm_memory
from tests.rewrites.graphs import difference, model, ops

RNG = np.random.default_rng(0)
MEMORY = """
memory (float[B,T,16] x, float[16,1,5] taps) => (float[B,T,16] y) {{
  t = Transpose<perm = [0, 2, 1]>(x)
  m = Conv<group = 16, kernel_shape = [5], {attributes}>(t, taps)
  r = Transpose<perm = [0, 2, 1]>(m)
  y = Add(r, x)
}}
"""


def memory(attributes: str) -> ir.Model:
    return model(MEMORY.format(attributes=attributes), taps=RNG.standard_normal((16, 1, 5)))


@pytest.mark.parametrize("pads", [pytest.param("2, 2", id="centred"), pytest.param("4, 0", id="causal")])
@pytest.mark.parametrize("shape", [(1, 1, 16), (1, 40, 16), (3, 40, 16)])
def test_same_outputs(pads: str, shape: tuple[int, ...]):
    given = memory(f"pads = [{pads}]")
    new, count = sanm_memory.rewrite(given)
    assert count == 1
    assert ops(new)["Add"] == 0
    assert difference(given, new, {"x": RNG.standard_normal(shape).astype(np.float32)}) < 1e-5


def test_a_convolution_whose_taps_do_not_meet_their_own_step_is_left():
    assert sanm_memory.rewrite(memory("pads = [4, 4], dilations = [2]"))[1] == 0
