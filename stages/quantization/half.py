"""fp16 and bf16 between fp32 inputs and outputs, for strongly typed TensorRT networks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stages.core import patches
from stages.core.errors import from_library
from stages.core.params.recipes import BFloat16Recipe, Float16Recipe

if TYPE_CHECKING:
    import onnx

BF16_OPSET = 22  # the first in which Conv and Sin have it


def convert(source: Path, place: Path, recipe: Float16Recipe | BFloat16Recipe) -> None:
    """Write the graph of `source`, its weights beside it, to `place` in half precision.

    fp32 stay the operators in `keep_fp32_ops`.

    Raises:
        UserError: a library cannot read or convert it.
    """
    import onnx

    with from_library(f"{source} cannot be converted to {recipe.kind}"):
        onnx.save(_to_float16(onnx.load(source), recipe.keep_fp32_ops), place)
        if isinstance(recipe, BFloat16Recipe):
            onnx.save(_to_bfloat16(onnx.load(place)), place)


def _to_float16(model: onnx.ModelProto, keep_fp32_ops: list[str]) -> onnx.ModelProto:
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    # Its own way to infer shapes ends at 2 GB of weights.
    settings = {"keep_io_types": True, "op_block_list": keep_fp32_ops, "disable_shape_infer": True}
    half = OnnxModel(convert_float_to_float16(patches.with_shapes(model), **settings))
    half.topological_sort()  # the converter puts its casts behind the nodes that read them
    del half.model.graph.value_info[:]  # it says fp16 of constants that stay fp32
    return half.model  # type: ignore[no-any-return]  # the library has no types


def _to_bfloat16(half: onnx.ModelProto) -> onnx.ModelProto:
    """Return an fp16 model with bf16 in its place: the range of fp32 at 8 bits of precision."""
    import onnx

    half, kinds = onnx.version_converter.convert_version(half, BF16_OPSET), onnx.TensorProto
    del half.graph.value_info[:]  # inferred as fp16
    for tensor in half.graph.initializer:
        _retype(tensor)
    for node in half.graph.node:
        for attribute in node.attribute:
            if attribute.name == "to" and attribute.i == kinds.FLOAT16:
                attribute.i = kinds.BFLOAT16
            elif attribute.HasField("t"):
                _retype(attribute.t)
    return half


def _retype(tensor: onnx.TensorProto) -> None:
    """Turn an fp16 tensor into bf16, in place."""
    import ml_dtypes
    import onnx

    if tensor.data_type == onnx.TensorProto.FLOAT16:
        values = onnx.numpy_helper.to_array(tensor).astype(ml_dtypes.bfloat16)
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
