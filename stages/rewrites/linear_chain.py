"""Two linear layers with nothing between them: one layer with the product of their weights, where that costs no more.

FSMN-VAD has such a pair at both ends. (x A + a) B + b = x (A B) + (a B + b), the products taken in fp64.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stages.rewrites import apply, constant, initializer

if TYPE_CHECKING:
    import onnx_ir as ir

DEARER = 1.1  # the most multiplications over the pair's: a layer less spares a pass over the activations


def rewrite(model: ir.Model) -> tuple[ir.Model, int]:
    """Merge such pairs of biased layers; return the new model and how many."""
    from onnxscript.rewriter import pattern

    return apply(model, [pattern.RewriteRule(_pair, _merged, _pays)])


def _pair(op: Any, inputs: Any, first: Any, first_bias: Any, second: Any, second_bias: Any) -> Any:
    return op.Add(op.MatMul(op.Add(op.MatMul(inputs, first), first_bias), second), second_bias)


def _pays(_: Any, first: ir.Value, first_bias: ir.Value, second: ir.Value, second_bias: ir.Value, **__: Any) -> bool:
    """Tell whether the merged layer costs at most DEARER times the multiplications of the pair."""
    matrices, biases = [constant(v) for v in (first, second)], [constant(v) for v in (first_bias, second_bias)]
    if any(m is None or m.ndim != 2 for m in matrices) or any(b is None or b.ndim != 1 for b in biases):
        return False
    (inputs, between), outputs = first.const_value.shape.numpy(), second.const_value.shape.numpy()[1]  # type: ignore[union-attr]
    return bool(inputs * outputs <= DEARER * between * (inputs + outputs))


def _merged(op: Any, inputs: Any, first: Any, first_bias: Any, second: Any, second_bias: Any) -> Any:
    a, a_bias, b, b_bias = (v.const_value.numpy().astype(np.float64) for v in (first, first_bias, second, second_bias))
    matrix = initializer(op, (a @ b).astype(np.float32), f"{first.name}.{second.name}", first)
    bias = initializer(op, (a_bias @ b + b_bias).astype(np.float32), f"{first_bias.name}.{second.name}", first)
    return op.Add(op.MatMul(inputs, matrix), bias)
