"""Graph rewrites that keep the numbers: one file, one rewrite, each a function from a model to a new one and a count.

The rules are onnxscript's; what they may use is what ONNX Runtime runs on a CPU, its own `com.microsoft` included.
`optimize` applies them; `smooth` and `embedding`, which rounds, are steps of a recipe of `quantize`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir
    from numpy.typing import NDArray

MICROSOFT = "com.microsoft"


def apply(model: ir.Model, rules: Sequence[Any]) -> tuple[ir.Model, int]:
    """Apply onnxscript's `rules` to a copy of the model until none applies, and tidy it.

    Returns:
        The new model, and how often a rule applied.
    """
    from onnxscript.rewriter import RewriteRuleSet

    new, total = model.clone(), 0
    tidy(new)  # rules ask for shapes
    while (count := RewriteRuleSet(rules).apply_to_model(new)) > 0:
        total += count
        tidy(new)
    return new, total


def tidy(model: ir.Model) -> None:
    """Remove what nothing reads, compute what is the same once, and infer shapes, in place."""
    import onnx_ir.passes.common as passes

    for step in (
        passes.IdentityEliminationPass(),
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.RemoveUnusedNodesPass(),
        passes.DeduplicateInitializersPass(),
        passes.CommonSubexpressionEliminationPass(),
        passes.ShapeInferencePass(),
    ):
        step(model)


def initializer(op: Any, numbers: NDArray[np.float32], name: str, near: ir.Value) -> ir.Value:
    """Add numbers to the graph that has `near`, a constant, under `name` or what of it is free there.

    A weight may be read in two places, and each rewrite of one makes its numbers anew; `tidy` lets equal ones be one.
    """
    import onnx_ir as ir

    added: ir.Value = op.initializer(ir.tensor(numbers), name=fresh_name(name, near))
    return added


def fresh_name(name: str, near: ir.Value) -> str:
    """Return `name`, with a number behind it where a value of the graph that has `near`, a constant, has it already."""
    graph: Any = near.graph
    taken = {*graph.initializers, *(value.name for value in graph.inputs)}
    taken |= {output.name for node in graph for output in node.outputs}
    numbered = (f"{name}.{number}" for number in itertools.count(2))
    return next(free for free in itertools.chain([name], numbered) if free not in taken)


def constant(value: ir.Value | None) -> NDArray[np.float32] | None:
    """Return the numbers of a constant value, or None where there is no value or it is computed."""
    return None if value is None or value.const_value is None else value.const_value.numpy()
