"""Smoothing keeps the numbers and evens out the activations, and leaves alone what others read too."""

from __future__ import annotations

import numpy as np
import pytest

from stages.rewrites import smooth
from tests.rewrites.graphs import difference, model, numbers, ops

RNG = np.random.default_rng(0)
LAYERS = """
layers (float[N,4] x, float[4] scale, float[4] bias, float[4,6] first, float[4,3] second) => ({outputs}) {{
  normal = LayerNormalization(x, scale, bias)
  a = MatMul(normal, first)
  b = MatMul(normal, second)
}}
"""
WEIGHTS = {
    "scale": np.array([1.0, 1.0, 50.0, 1.0]),  # channel 2 has outliers
    "bias": RNG.standard_normal(4),
    "first": RNG.standard_normal((4, 6)),
    "second": RNG.standard_normal((4, 3)),
}
X = RNG.standard_normal((100, 4)).astype(np.float32)
LARGEST = {"normal": np.array([3.0, 3.0, 150.0, 3.0], np.float32)}


def test_the_numbers_stay_and_no_node_is_added():
    before = model(LAYERS.format(outputs="float[N,6] a, float[N,3] b"), **WEIGHTS)
    after, count = smooth.rewrite(before, LARGEST, 0.5)
    assert count == 1
    assert ops(after) == ops(before)
    assert len(after.graph.initializers) == len(before.graph.initializers)
    assert difference(before, after, {"x": X}) < 1e-3


@pytest.mark.parametrize("alpha", [0.3, 0.5, 0.8])
def test_the_outlier_moves_into_the_weights(alpha: float):
    before = model(LAYERS.format(outputs="float[N,6] a, float[N,3] b"), **WEIGHTS)
    after, _ = smooth.rewrite(before, LARGEST, alpha)
    norm = next(node for node in after.graph if node.op_type == "LayerNormalization")
    scales = np.abs(numbers(norm.inputs[1]))
    assert scales.max() / scales.min() < 50


def test_activations_that_are_read_elsewhere_are_left_alone():
    before = model(LAYERS.format(outputs="float[N,6] a, float[N,4] normal"), **WEIGHTS)
    assert smooth.readers(before) == {}
    after, count = smooth.rewrite(before, LARGEST, 0.5)
    assert count == 0
    assert difference(before, after, {"x": X}) == 0
