"""Slices of the last elements of an axis: they begin at its length less their number, which a converter can count.

LiteRT's converter takes a beginning below zero for the axis's own, where its length is known only at run time, and an
end that 32 bits do not hold for the last element but one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx_ir as ir

LAST = np.iinfo(np.int32).max


def rewrite(model: ir.Model) -> int:
    """Let such slices count from the beginning, in place; return how many."""
    found = [node for node in model.graph if node.op_type == "Slice" and _takes_the_last(node)]
    for node in found:
        _count(model.graph, node)
    return len(found)


def _takes_the_last(node: ir.Node) -> bool:
    constants: list[Any] = [value.const_value if value else None for value in node.inputs[1:]]
    if len(constants) < 3 or any(constant is None or constant.size != 1 for constant in constants):
        return False
    start, end, _, *steps = (int(constant.numpy()[0]) for constant in constants)
    return start < 0 and end >= LAST and steps in ([], [1])


def _count(graph: ir.Graph, node: ir.Node) -> None:
    """Let one begin at the axis's length plus its own beginning, which is below zero, and end at LAST."""
    import onnx_ir as ir

    data, starts, _, axes, *_ = node.inputs
    shape = ir.node("Shape", [data])
    length = ir.node("Gather", [shape.outputs[0], axes], {"axis": 0})
    start = ir.node("Add", [length.outputs[0], starts])
    end = ir.node("Constant", [], {"value": ir.tensor(np.array([LAST], np.int64))})
    graph.insert_before(node, [shape, length, start, end])
    node.replace_input_with(1, start.outputs[0])
    node.replace_input_with(2, end.outputs[0])
