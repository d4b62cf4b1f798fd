"""GELU as one operator of ONNX Runtime, which finds it in two orders of the factors and not in the exporter's.

Hendrycks & Gimpel, "Gaussian error linear units (GELUs)", 2016: x (1 + erf(x / sqrt 2)) / 2.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from stages.rewrites import MICROSOFT, apply

if TYPE_CHECKING:
    import onnx_ir as ir


def rewrite(model: ir.Model) -> tuple[ir.Model, int]:
    """Replace each GELU by one operator; return the new model and how many."""
    from onnxscript.rewriter import pattern

    return apply(model, [pattern.RewriteRule(_gelu, _fused)])


def _gelu(op: Any, x: Any) -> Any:
    return op.Mul(x, op.Mul(0.5, op.Add(op.Erf(op.Div(x, math.sqrt(2))), 1.0)))


def _fused(op: Any, x: Any) -> Any:
    return op.Gelu(x, _domain=MICROSOFT, _version=1)
