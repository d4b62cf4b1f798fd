"""Outliers of activations moved into the weights that read them, which quantize better: SmoothQuant.

Xiao, Lin, Seznec, Wu, Demouth & Han, "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large
Language Models", 2023. Channel j of what a layer reads is divided, and its row of the weights multiplied, by
s_j = max|x_j|^alpha / max|w_j|^(1 - alpha). Where a LayerNormalization gives the activations, its own scale and bias
take the division, so that nothing is left to do at run time; other layers are left alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stages.rewrites import constant, fresh_name

if TYPE_CHECKING:
    import onnx_ir as ir

TINY = 1e-5  # a channel that is never used stays as it is


def readers(model: ir.Model) -> dict[str, list[ir.Node]]:
    """Find the MatMuls with constant weights that alone read a LayerNormalization's output, by that output's name."""
    found = {}
    for node in model.graph:
        if node.op_type != "LayerNormalization" or any(constant(value) is None for value in node.inputs[1:]):
            continue
        output = node.outputs[0]
        uses = list(output.uses())
        reads = [use.node for use in uses if use.idx == 0 and use.node.op_type == "MatMul"]
        weights = [constant(n.inputs[1]) for n in reads]
        whole = len(reads) == len(uses) and not output.is_graph_output()
        if reads and whole and all(weight is not None and weight.ndim == 2 for weight in weights):
            found[str(output.name)] = reads
    return found


def rewrite(model: ir.Model, largest: Mapping[str, NDArray[np.float32]], alpha: float) -> tuple[ir.Model, int]:
    """Smooth the layers that `readers` finds; return the new model and how many.

    largest: the largest absolute value of each channel, float32 (channels,), of the values that `readers` names.
    """
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    new = model.clone()
    for name, nodes in readers(new).items():
        weights = [np.asarray(constant(node.inputs[1])) for node in nodes]
        rows = np.max([np.abs(weight).max(axis=1) for weight in weights], axis=0)
        scale = np.maximum(largest[name], TINY) ** alpha / np.maximum(rows, TINY) ** (1 - alpha)
        for node in nodes:
            _replace(new, node, 1, scale[:, None])
        norm = nodes[0].inputs[0].producer()  # type: ignore[union-attr]  # of a LayerNormalization, so there is one
        for index in range(1, len(norm.inputs)):  # type: ignore[union-attr]
            _replace(new, norm, index, 1 / scale)  # type: ignore[arg-type]
    RemoveUnusedNodesPass()(new)  # and the weights that were replaced
    return new, len(readers(new))


def _replace(model: ir.Model, node: ir.Node, index: int, factor: NDArray[np.float32]) -> None:
    """Give a node an initializer of its own in place of an input: the input times a factor, computed when read.

    All smoothed weights at once would be the model's size again.
    """
    import onnx_ir as ir

    old: ir.Value = node.inputs[index]  # type: ignore[assignment]  # a constant, so there is one
    numbers, name = old.const_value, fresh_name(f"{old.name}.smooth.{node.name}", old)

    def computed() -> ir.TensorProtocol:
        return ir.tensor((numbers.numpy() * factor).astype(np.float32), name=name)  # type: ignore[union-attr]

    tensor = ir.LazyTensor(computed, dtype=ir.DataType.FLOAT, shape=numbers.shape, name=name)  # type: ignore[union-attr, arg-type]
    value = ir.Value(name=name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
    model.graph.register_initializer(value)
    node.replace_input_with(index, value)
