"""The record of an INT8 graph: what became of each node, and why some stayed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from stages.core.params.recipes import DynamicRecipe, StaticRecipe
from stages.quantization.integer import small_layers

if TYPE_CHECKING:
    import onnx

Record = dict[str, dict[str, str]]


def record_of(before: onnx.ModelProto, after: onnx.ModelProto, recipe: DynamicRecipe | StaticRecipe) -> Record:
    """Return what became of the nodes that carry weights."""
    import onnx

    record: Record = {"quantized": {}, "kept": {}}
    matrices = [i for i in before.graph.initializer if i.data_type == onnx.TensorProto.FLOAT and len(i.dims) > 1]
    weights = {i.name: i for i in matrices}
    inputs, small = {node.name: list(node.input) for node in after.graph.node}, small_layers(before, recipe)
    kinds = {i.name: onnx.TensorProto.DataType.Name(i.data_type) for i in after.graph.initializer}
    for node in before.graph.node:
        carries = [name for name in node.input if name in weights]
        as_matmul = f"{node.name}_MatMul" in inputs  # a Gemm that was not quantized
        if not as_matmul and (node.name not in inputs or not set(carries) <= set(inputs[node.name])):
            record["quantized"][node.name] = f"{node.op_type} -> {_kind(carries, kinds)}"
        elif node.name in recipe.exclude_nodes:
            record["kept"][node.name] = f"{node.op_type}: in exclude_nodes"
        elif node.name in small:
            record["kept"][node.name] = f"{node.op_type}: {small[node.name]}"
        elif node.op_type in recipe.op_types:
            record["kept"][node.name] = f"{node.op_type}: no constant weight"
        elif carries and node.op_type == "Gather" and (rows := recipe.embedding_rows) is not None:
            few = weights[carries[0]].dims[0] < rows
            why = f"fewer than {rows} rows" if few else "its table is not only looked up by row"
            record["kept"][node.name] = f"{node.op_type}: {why}"
        elif carries:
            record["kept"][node.name] = f"{node.op_type}: not in op_types"
    return record


def _kind(weights: Sequence[str], kinds: Mapping[str, str]) -> str:
    """Return the type of what a node has in the place of its weights; kinds: of the quantized graph's initializers."""
    for weight in weights:
        if kind := kinds.get(f"{weight}_quantized"):
            return kind
        if kind := kinds.get(f"{weight}.int8"):
            return f"{kind} by row"
    return "other operators"
