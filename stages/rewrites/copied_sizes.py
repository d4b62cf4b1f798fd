"""Reshapes that keep sizes of their input: a constant says so, with 0, in place of a shape that is computed.

ONNX Runtime 1.14.0 to 1.17.3 gave the memory of such a shape to another tensor in SeACo-Paraformer's INT8 graph, when
it ran without hotwords on a length that it had planned memory for before, and a Reshape found numbers of that tensor.
Without memory patterns, reuse of memory or its fusion of scales into products it did not, and 1.20.1 does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stages.rewrites import constant, fresh_name, tidy

if TYPE_CHECKING:
    import onnx_ir as ir


def rewrite(model: ir.Model) -> tuple[ir.Model, int]:
    """Give Reshapes whose sizes are known, or those of their input, a constant; return the new model and how many."""
    new = model.clone()
    tidy(new)  # for the shapes
    count = sum(_fix(node) for node in new.graph if node.op_type == "Reshape" and constant(node.inputs[1]) is None)
    tidy(new)
    return new, count


def _fix(node: ir.Node) -> bool:
    """Replace the computed shape of a Reshape, where that can be."""
    import onnx_ir as ir

    data, shape = node.inputs
    sizes = _sizes(data.shape, node.outputs[0].shape)  # type: ignore[union-attr]  # both are there
    if sizes is None:
        return False
    name = fresh_name(f"{node.outputs[0].name}.sizes", shape)  # type: ignore[arg-type]
    value = ir.Value(name=name, const_value=ir.tensor(np.array(sizes, np.int64), name=name))
    shape.graph.register_initializer(value)  # type: ignore[union-attr]
    node.replace_input_with(1, value)
    node.attributes.pop("allowzero", None)  # with which 0 is no copy
    return True


def _sizes(before: ir.Shape | None, after: ir.Shape | None) -> list[int] | None:
    """Return the sizes of a result, 0 where it keeps that of its input at the same place; None if one is neither."""
    if before is None or after is None:
        return None
    kept = [index < len(before) and before[index] == size for index, size in enumerate(after)]
    if any(not isinstance(size, int) and not keeps for size, keeps in zip(after, kept, strict=True)):
        return None
    return [size if isinstance(size, int) else 0 for size in after]
