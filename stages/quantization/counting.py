"""Which nodes of a graph count, place, or give its results: what stays in fp32 when the rest is in half precision.

fp16 tells whole numbers apart up to 2,048 and bf16 up to 256, and a sum adds up the rounding of its terms. So a graph
that counts tokens in half precision loses some of a long recording, and the sines of its late positions are wrong.
What does so is found by what it computes, not by its name:

- *exact values*: what a graph makes of its shapes, lengths, indices and masks, which are whole numbers, and of its
  inputs, up to the first layer or up to where it meets activations;
- *what becomes a whole number*: what leads to a running sum, a rounding, a sine, a comparison, an index or an integer,
  from the last layer before it on, and what is computed of running sums and roundings;
- *results*: what leads to an output, from the last layer on: the caller adds, compares or counts them;
- *sums over the recording*: a softmax, mean or sum along an axis whose size is not fixed.

A layer mixes the channels of a vector: a product with weights or between activations, a convolution, a recurrence, a
normalization. A product with whole numbers is none: under a triangular mask it is a running sum. Nor is one over an
axis of size 1, as of positions with frequencies. A last layer of few outputs stays in fp32 too: it gives what is
counted, and costs nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

ROUNDING = frozenset({"Ceil", "CumSum", "Floor", "Mod", "Range", "Round"})  # what they give is whole, or a running sum
PERIODIC = frozenset({"Cos", "Sin", "Tan"})  # right only of an exact value: half a turn is little of a large one
PRODUCTS = frozenset({"Einsum", "Gemm", "MatMul"})
CONVOLUTIONS = frozenset({"Conv", "ConvTranspose", "DeformConv"})
LAYERS = CONVOLUTIONS | {"Attention", "GRU", "LSTM", "RNN"}
SUMS = frozenset({"GlobalAveragePool", "LogSoftmax", "ReduceMean", "ReduceSum", "ReduceSumSquare", "Softmax"})
SUMS |= {"ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceProd"}
SIZES = frozenset({"Shape", "Size"})  # integers, but not of what the values are
NARROW = 8  # outputs; fewer cost nothing


def find(model: ir.Model) -> set[ir.Node]:
    """Find the nodes of a graph that stay in fp32; its shapes are inferred, and its nodes in order."""
    nodes = list(model.graph)
    found = {node for node in nodes if _rounds(node)}
    exact = {value: False for value in model.graph.inputs if is_float(value)}  # to whether it is of whole numbers
    before = -1
    while before != (before := len(found) + len(exact)):
        for node in nodes:
            if _is_exact(node, exact, found):
                found.add(node)
                whole = all(exact.get(value, True) for value in _computed(node))
                exact.update(dict.fromkeys(node.outputs, whole or node.op_type in ROUNDING))
        ends = [value for node in found if not _is_layer(node, exact) for value in node.inputs if value is not None]
        found |= _lead_to([*ends, *model.graph.outputs], exact)
    return found | {node for node in nodes if _sums_recording(node)}


def is_float(value: ir.Value | None) -> bool:
    """Tell whether a value exists and is fp32."""
    import onnx_ir as ir

    return value is not None and value.dtype == ir.DataType.FLOAT


def _computed(node: ir.Node) -> list[ir.Value]:
    """Return the fp32 inputs of a node that are not constants."""
    return [value for value in node.inputs if value is not None and is_float(value) and value.const_value is None]


def _rounds(node: ir.Node) -> bool:
    """Tell whether a node turns floats into whole numbers, or is right only for exact floats."""
    if not any(map(is_float, node.inputs)) or node.op_type in SIZES:
        return False
    return node.op_type in ROUNDING | PERIODIC or not all(map(is_float, node.outputs))


def _sums_recording(node: ir.Node) -> bool:
    """Tell whether a node adds up along an axis that may be as long as the recording."""
    if node.op_type not in SUMS or node.inputs[0] is None or not is_float(node.inputs[0]):
        return False
    if (shape := node.inputs[0].shape) is None or node.op_type == "GlobalAveragePool":
        return True
    axes: list[int] = list(range(len(shape)))
    if node.op_type in {"Softmax", "LogSoftmax"}:
        axes = [node.attributes["axis"].as_int() if "axis" in node.attributes else -1]
    elif "axes" in node.attributes:
        axes = list(node.attributes["axes"].as_ints())
    elif len(node.inputs) > 1 and node.inputs[1] is not None and node.inputs[1].const_value is not None:
        axes = node.inputs[1].const_value.numpy().tolist()
    return any(not isinstance(shape[axis], int) for axis in axes)


def _is_exact(node: ir.Node, exact: dict[ir.Value, bool], found: Collection[ir.Node]) -> bool:
    """Tell whether a node's floats are made of integers, or of exact values and of nothing in half precision."""
    if not any(map(is_float, node.outputs)) or node.op_type == "ConstantOfShape":
        return False
    computed, constants = _computed(node), [v for v in node.inputs if v is not None and v.const_value is not None]
    if not any(map(is_float, node.inputs)):
        return len(constants) < len(node.inputs)
    if node.op_type in ROUNDING:
        return True
    weighs = node.op_type in PRODUCTS and any(map(is_float, constants)) and not _is_outer(node)
    known = [value in exact for value in computed]
    rest = [value.producer() in found for value, is_exact in zip(computed, known, strict=True) if not is_exact]
    return any(known) and all(rest) and not weighs and not _is_layer(node, exact)


def _lead_to(ends: list[ir.Value], exact: dict[ir.Value, bool]) -> set[ir.Node]:
    """Return the nodes that compute the fp32 values which the ends are made of, from the last layer on."""
    found: set[ir.Node] = set()
    while ends:
        value = ends.pop()
        node = value.producer() if is_float(value) else None
        if node is None or node in found:
            continue
        layer = _is_layer(node, exact)
        if not layer or _is_narrow(node):
            found.add(node)
        if not layer:
            ends += [value for value in node.inputs if value is not None]
    return found


def _is_layer(node: ir.Node, exact: dict[ir.Value, bool]) -> bool:
    if node.domain or node.op_type in LAYERS or node.op_type.endswith("Normalization"):
        return True
    whole = any(exact.get(value, False) for value in _computed(node))
    return node.op_type in PRODUCTS and not whole and not _is_outer(node)


def _is_narrow(node: ir.Node) -> bool:
    shape = node.outputs[0].shape
    width = None if shape is None or not len(shape) else shape[1 if node.op_type in CONVOLUTIONS else -1]
    return isinstance(width, int) and width < NARROW


def _is_outer(node: ir.Node) -> bool:
    """Tell whether a product adds nothing up: each of its numbers is one number times another."""
    if node.op_type == "Einsum":
        inputs, _, output = node.attributes["equation"].as_string().replace(" ", "").partition("->")
        return bool(output) and set(inputs) - {","} <= set(output)
    return 1 in _inner_sizes(node)


def _inner_sizes(node: ir.Node) -> Iterator[object]:
    """Return what is known of the size of the axis over which a MatMul or Gemm adds up."""
    transposed = [name in node.attributes and node.attributes[name].as_int() == 1 for name in ("transA", "transB")]
    for value, axis, other, flipped in zip(node.inputs, (-1, -2), (-2, -1), transposed, strict=False):
        if value is not None and value.shape is not None and len(value.shape) > 1:
            yield value.shape[other if flipped else axis]
