"""fp16 and bf16 between fp32 inputs and outputs, for strongly typed TensorRT networks.

What counts and places stays in fp32 (stages/quantization/counting.py), of fp16 also what exceeds its range
(stages/quantization/magnitudes.py). ONNX Runtime's converter rounds between two neighbours that stay in fp32, and what
is to be bf16 to fp16 first.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.core import graphs
from stages.core.errors import from_library
from stages.core.graphs import Feeds
from stages.core.params.recipes import BFloat16Recipe, Float16Recipe
from stages.quantization import counting, magnitudes
from stages.quantization.counting import is_float
from stages.quantization.record import Record
from stages.rewrites import fresh_name

if TYPE_CHECKING:
    import onnx_ir as ir

BF16_OPSET = 22  # the first in which Conv and Sin have it
RECURRENCES, LENGTHS = frozenset({"GRU", "LSTM", "RNN"}), 4  # and which of their inputs is how long each sequence is


def convert(
    source: Path, place: Path, recipe: Float16Recipe | BFloat16Recipe, scratch: Path, feeds: Sequence[Feeds]
) -> Record:
    """Write the graph of `source` to `place` in half precision.

    feeds: what it is given in use, which tells what exceeds the range of fp16. scratch: a folder for a copy.

    Returns:
        `quantized`: names of nodes to what they became; `kept`: of those that stay in fp32 to why.

    Raises:
        UserError: a library cannot convert it.
    """
    import onnx_ir as ir
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    kind = ir.DataType.FLOAT16 if isinstance(recipe, Float16Recipe) else ir.DataType.BFLOAT16
    with from_library(f"{source} cannot be converted to {recipe.kind}"):
        model = _prepare(source, kind)
        counted = counting.find(model)
        kept = {node: "counts, places, sums a recording or is a result" for node in model.graph if node in counted}
        if isinstance(recipe, Float16Recipe):
            largest = magnitudes.largest_values(model, scratch, graphs.weights_folder(source), feeds)
            kept = magnitudes.exceeding(model, largest) | kept
        floats = [node for node in model.graph if any(map(is_float, (*node.inputs, *node.outputs)))]
        kept = dict.fromkeys(filter(_has_lengths, floats), "TensorRT masks its lengths in fp32 alone") | kept
        unable = (node for node in floats if not _may_lower(model, node, kind))
        kept = dict.fromkeys(unable, f"has no {kind.name} kind") | kept
        lowered = [node for node in floats if node not in kept]
        _lower(model, lowered, kind)
        RemoveUnusedNodesPass()(model)  # and the fp32 weights, which nothing reads now
        graphs.save(model, place)
    return {
        "quantized": {str(node.name): f"{node.op_type} -> {kind.name}" for node in lowered},
        "kept": {str(node.name): f"{node.op_type}: {why}" for node, why in kept.items()},
    }


def _prepare(source: Path, kind: ir.DataType) -> ir.Model:
    """Load a graph in an opset whose operators have the kind, with all constants named and all shapes inferred."""
    import onnx_ir as ir
    from onnx_ir.passes.common import LiftConstantsToInitializersPass, ShapeInferencePass
    from onnxscript import version_converter

    model = graphs.load(source)
    if kind == ir.DataType.BFLOAT16:
        version_converter.convert_version(model, BF16_OPSET, fallback=True)
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    ShapeInferencePass()(model)
    return model


def _has_lengths(node: ir.Node) -> bool:
    """Tell whether a node is a recurrence over sequences of unequal lengths."""
    return node.op_type in RECURRENCES and len(node.inputs) > LENGTHS and node.inputs[LENGTHS] is not None


def _may_lower(model: ir.Model, node: ir.Node, kind: ir.DataType) -> bool:
    """Tell whether a node can compute outputs of a type from inputs of that type."""
    named = {"dtype", "to"} & set(node.attributes)  # its type, whatever it reads
    lowers = any(_takes(model, node, index, kind) for index, value in enumerate(node.inputs) if is_float(value))
    outputs = (index for index, value in enumerate(node.outputs) if is_float(value))
    return lowers and not named and all(_takes(model, node, index, kind, output=True) for index in outputs)


def _takes(model: ir.Model, node: ir.Node, index: int, kind: ir.DataType, *, output: bool = False) -> bool:
    """Tell whether a node's input or output may have a type, by the operator's schema."""
    import onnx

    opset = model.opset_imports.get(node.domain, 1)
    if not onnx.defs.has(node.op_type, opset, node.domain):
        return False
    schema = onnx.defs.get_schema(node.op_type, opset, node.domain)
    formal = list(schema.outputs if output else schema.inputs)
    parameter = formal[min(index, len(formal) - 1)]  # the last may stand for many
    return f"tensor({kind.name.lower()})" in parameter.types


def _lower(model: ir.Model, lowered: Sequence[ir.Node], kind: ir.DataType) -> None:
    """Make nodes compute in a type, in place, with casts where values go in and out of them."""
    nodes = set(lowered)
    values = [*model.graph.inputs, *model.graph.initializers.values(), *(v for n in model.graph for v in n.outputs)]
    for value in filter(is_float, values):
        _retype(model, value, nodes, kind)


def _retype(model: ir.Model, value: ir.Value, lowered: set[ir.Node], kind: ir.DataType) -> None:
    """Give a value's readers the type that they take: the value itself, or its cast."""
    import onnx_ir as ir

    half = [use for use in value.uses() if use.node in lowered and _takes(model, use.node, use.idx, kind)]
    rest = [use for use in value.uses() if use not in half]
    if value.producer() not in lowered:
        if half:
            _redirect(half, _rounded(model, value, kind) if value.const_value else _cast(model, value, kind))
        return
    value.dtype = kind
    if rest or value.is_graph_output():
        back = _cast(model, value, ir.DataType.FLOAT)
        _redirect(rest, back)
        if value.is_graph_output():
            name, value.name = value.name, fresh_name(f"{value.name}.half", value)
            back.name = name
            model.graph.outputs[list(model.graph.outputs).index(value)] = back


def _redirect(uses: Sequence[Any], value: ir.Value) -> None:
    for use in uses:
        use.node.replace_input_with(use.idx, value)


def _cast(model: ir.Model, value: ir.Value, kind: ir.DataType) -> ir.Value:
    """Return a value in another type, cast right behind where it is made."""
    import onnx_ir as ir

    name = fresh_name(f"{value.name}.{kind.name.lower()}", value)
    output = ir.Value(name=name, shape=value.shape, type=ir.TensorType(kind))
    node = ir.node("Cast", [value], {"to": kind}, outputs=[output], name=f"{name}.cast")
    if (producer := value.producer()) is None:
        model.graph.insert_before(model.graph[0], node)
    else:
        model.graph.insert_after(producer, node)
    return output


def _rounded(model: ir.Model, value: ir.Value, kind: ir.DataType) -> ir.Value:
    """Return a constant in another type, computed only when written: all at once would need the model's size again."""
    import onnx_ir as ir

    numbers, name = value.const_value, fresh_name(f"{value.name}.{kind.name.lower()}", value)

    def computed() -> ir.TensorProtocol:
        return ir.tensor(numbers.numpy().astype(kind.numpy()), dtype=kind, name=name)  # type: ignore[union-attr]

    tensor = ir.LazyTensor(computed, dtype=kind, shape=numbers.shape, name=name)  # type: ignore[union-attr, arg-type]
    rounded = ir.Value(name=name, shape=tensor.shape, type=ir.TensorType(kind), const_value=tensor)
    model.graph.register_initializer(rounded)
    return rounded
