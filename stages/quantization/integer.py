"""INT8 by ONNX Runtime's quantizers, dynamic and static, with scales that overflow on no CPU."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stages.core import graphs
from stages.core.errors import from_library
from stages.core.graphs import Feeds
from stages.core.params.recipes import DynamicRecipe, StaticRecipe
from stages.core.patches.onnxruntime import quantizers, weights_scaled_by

if TYPE_CHECKING:
    import onnx


def quantize(source: Path, place: Path, recipe: DynamicRecipe | StaticRecipe, feeds: Sequence[Feeds]) -> None:
    """Write the graph of `source` to `place` in INT8. feeds: for a static recipe.

    Raises:
        UserError: ONNX Runtime cannot quantize it.
    """
    with from_library(f"{source} cannot be quantized"):
        if isinstance(recipe, DynamicRecipe):
            _quantize_dynamic(source, place, recipe)
        else:
            _quantize_static(source, place, recipe, feeds)


def _quantize_dynamic(source: Path, place: Path, recipe: DynamicRecipe) -> None:
    """Call ONNX Runtime's dynamic quantization: INT8 weights, uint8 activations scaled at run time."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    own = weights_scaled_by(_finest_scales) if _finds_scales(recipe) else nullcontext()
    with quantizers(), own:
        quantize_dynamic(
            source,
            place,
            op_types_to_quantize=recipe.op_types,
            per_channel=recipe.per_channel,
            reduce_range=recipe.reduce_range,
            weight_type=QuantType[recipe.weight_type],
            # Of a Gemm the library makes a MatMul with a name of its own before it looks for what is excluded.
            nodes_to_exclude=[
                *(name + made for name in recipe.exclude_nodes for made in ("", "_MatMul")),
                *small_layers(graphs.load_proto(source), recipe),
            ],
            extra_options={"MatMulConstBOnly": True},
        )


def _quantize_static(source: Path, place: Path, recipe: StaticRecipe, feeds: Sequence[Feeds]) -> None:
    """Call ONNX Runtime's static quantization, in QuantizeLinear and DequantizeLinear pairs."""
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # the library has no types
        def set_range(self, start_index: int, end_index: int) -> None:
            self.left = iter(feeds[start_index:end_index])

        def get_next(self) -> Feeds | None:
            return next(self.left, None)

        def __len__(self) -> int:
            return len(feeds)

    methods = {"minmax": "MinMax", "percentile": "Percentile", "entropy": "Entropy"}
    before = graphs.load_proto(source)
    with quantizers():
        quantize_static(
            source,
            place,
            Reader(),
            op_types_to_quantize=recipe.op_types,
            per_channel=recipe.per_channel,
            reduce_range=recipe.reduce_range,
            activation_type=QuantType[recipe.activation_type],
            weight_type=QuantType[recipe.weight_type],
            nodes_to_exclude=[*recipe.exclude_nodes, *small_layers(before, recipe)],
            calibrate_method=CalibrationMethod[methods[recipe.calibration]],
            extra_options={
                "MatMulConstBOnly": True,
                "TensorQuantOverrides": _overrides(before, source.parent) if _finds_scales(recipe) else {},
                "ActivationSymmetric": recipe.symmetric,
                "QuantizeBias": not recipe.symmetric,  # as INT32, of which TensorRT knows nothing
                "CalibPercentile": recipe.percentile,
                "CalibStridedMinMax": 1,  # input by input, with any method: they have different lengths
            },
        )


def small_layers(model: onnx.ModelProto, recipe: DynamicRecipe | StaticRecipe) -> dict[str, str]:
    """Return the layers that the recipe leaves in fp32 for their size: node names to why."""
    shapes, small = {i.name: list(i.dims) for i in model.graph.initializer}, {}
    for node in model.graph.node:
        shape = shapes.get(node.input[1], []) if len(node.input) > 1 else []
        if node.op_type == "MatMul" and len(shape) == 2 and shape[1] < recipe.min_outputs:
            small[node.name] = f"fewer than {recipe.min_outputs} outputs"
        elif node.op_type == "Conv" and shape and _intensity(node, shape) < recipe.min_intensity:
            small[node.name] = f"fewer than {recipe.min_intensity:g} multiplications for each value"
    return small


def _intensity(convolution: onnx.NodeProto, shape: Sequence[int]) -> float:
    """Return how often a convolution multiplies for each value that it reads or writes.

    shape: of its weight, (outputs, inputs of a group, *kernel).
    """
    groups = next((a.i for a in convolution.attribute if a.name == "group"), 1)
    return math.prod(shape) / (shape[0] + groups * shape[1])


def _finds_scales(recipe: DynamicRecipe | StaticRecipe) -> bool:
    """Return whether weights get `_finest_scales`; the library's own `reduce_range` halves all weights instead."""
    return recipe.reduce_range and recipe.per_channel and recipe.weight_type == "QInt8"


def _finest_scales(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return for each column of a weight (inputs, outputs) the finest scale that overflows on no CPU, (outputs,).

    Without VNNI, ONNX Runtime adds the products of two uint8 activations with two neighbouring int8 weights in 16 bits:
    255 (q0 + q1) fits while |q0 + q1| <= 128. Half of 8 bits for every weight would do; but two large ones of one sign
    are seldom neighbours. 127 leaves room for the rounding of both.
    """
    pairs = np.abs(weight[: len(weight) // 2 * 2 : 2] + weight[1::2])
    largest = np.maximum(np.abs(weight).max(axis=0), pairs.max(axis=0, initial=0))
    return np.where(largest > 0, largest / np.float32(127), np.float32(1))


def _overrides(model: onnx.ModelProto, folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Return `_finest_scales` of each weight in the form in which ONNX Runtime takes them."""
    import onnx

    weights = {i.name: i for i in model.graph.initializer if i.data_type == onnx.TensorProto.FLOAT and len(i.dims) == 2}
    scales = {}
    for node in model.graph.node:
        if node.op_type in {"MatMul", "Gemm"} and node.input[1] in weights:
            channels = 0 if any(a.name == "transB" and a.i for a in node.attribute) else 1
            weight = onnx.numpy_helper.to_array(weights[node.input[1]], str(folder))
            scales[node.input[1]] = [
                {"axis": channels, "scale": scale, "zero_point": np.int8(0)}
                for scale in _finest_scales(weight if channels else weight.T)
            ]
    return scales
