"""What can be computed once is: onnxscript's own optimizer folds constants and drops dead shape arithmetic."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stages.rewrites import tidy

if TYPE_CHECKING:
    import onnx_ir as ir


def rewrite(model: ir.Model) -> tuple[ir.Model, int]:
    """Fold constants and compute common subexpressions once; return the new model and how many nodes that spared."""
    from onnxscript.optimizer import fold_constants

    new = model.clone()
    fold_constants(new)
    tidy(new)
    return new, model.graph.num_nodes() - new.graph.num_nodes()
