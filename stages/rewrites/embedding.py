"""Large tables of embeddings in INT8, each row with a scale of its own, read by row as before.

What looks one row up in the fp32 table looks it up in the INT8 one and multiplies it by its scale, which costs ONNX
Runtime no more time: only the rows that are asked for are turned back into fp32. The rows are symmetric, so that there
are no zero points, and the operators are standard ones that any version of ONNX Runtime has. A rounding is off by at
most 1/254 of a row's largest number, which no sum of products can overflow on the way.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stages.rewrites import fresh_name

if TYPE_CHECKING:
    import onnx_ir as ir

BLOCK = 4096  # rows that are quantized at a time: a table may be half a GB


def tables(model: ir.Model, least_rows: int, excluded: Collection[str] = ()) -> list[ir.Value]:
    """Return the fp32 matrices of at least that many rows that nothing but Gather reads, by row.

    excluded: names of nodes that are to read fp32.
    """
    import onnx_ir as ir

    return [
        value
        for value in model.graph.initializers.values()
        if value.const_value is not None
        and value.const_value.dtype == ir.DataType.FLOAT
        and value.const_value.shape.rank() == 2
        and value.const_value.shape.numpy()[0] >= least_rows
        and _is_read_by_row(value)
        and not any(use.node.name in excluded for use in value.uses())
    ]


def _is_read_by_row(value: ir.Value) -> bool:
    quantize_rows = [
        use.idx == 0 and use.node.op_type == "Gather" and use.node.attributes.get_int("axis", 0) in {0, -2}
        for use in value.uses()
    ]
    return bool(quantize_rows) and all(quantize_rows) and not value.is_graph_output()


def rewrite(model: ir.Model, least_rows: int, excluded: Collection[str] = ()) -> tuple[ir.Model, int]:
    """Return the model with its `tables` in INT8, and how many; a Gather keeps its name."""
    new = model.clone()
    found = tables(new, least_rows, excluded)
    for table in found:
        _replace(new.graph, table)
    return new, len(found)


def _replace(graph: ir.Graph, table: ir.Value) -> None:
    import onnx_ir as ir

    numbers, scales = quantize_rows(table.const_value.numpy())  # type: ignore[union-attr]  # one of `tables`
    rows, factors = (
        _initializer(table, f"{table.name}.{kind}", array) for kind, array in (("int8", numbers), ("scale", scales))
    )
    for use in table.uses():
        old, ids = use.node, use.node.inputs[1]
        read = ir.node("Gather", [rows, ids], {"axis": 0}, name=old.name)
        whole = ir.node("Cast", [read.outputs[0]], {"to": ir.DataType.FLOAT.value})
        scale = ir.node("Gather", [factors, ids], {"axis": 0})
        product = ir.node("Mul", [whole.outputs[0], scale.outputs[0]])
        made = [read, whole, scale, product]
        place: ir.Graph = old.graph  # type: ignore[assignment]  # it has been in one since it was loaded
        ir.convenience.replace_nodes_and_values(place, old, [old], made, old.outputs, product.outputs)
    del graph.initializers[str(table.name)]


def quantize_rows(table: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return a table (rows, columns) as INT8 and the scale of each row (rows, 1), without a copy of it in fp32."""
    largest = np.maximum(table.max(axis=1, keepdims=True), -table.min(axis=1, keepdims=True))
    scales = np.where(largest > 0, largest / np.float32(127), np.float32(1))
    numbers = np.empty(table.shape, np.int8)
    for start in range(0, len(table), BLOCK):
        block = slice(start, start + BLOCK)
        numbers[block] = np.rint(table[block] / scales[block])
    return numbers, scales


def _initializer(near: ir.Value, wanted: str, array: NDArray[np.generic]) -> ir.Value:
    import onnx_ir as ir

    tensor = ir.tensor(array, name=fresh_name(wanted, near))
    value = ir.Value(
        name=tensor.name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor
    )
    near.graph.register_initializer(value)  # type: ignore[union-attr]
    return value
