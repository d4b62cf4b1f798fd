"""Quantizing with ONNX Runtime. Seen in 1.32."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stages.core.patches import replace

if TYPE_CHECKING:
    import onnx

BY_CHANNEL = "quantize_weight_per_channel_impl"  # of its BaseQuantizer
WITH_SHAPES = "save_and_reload_model_with_shape_infer"  # of its onnx_quantizer
Scales = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""The scale of each column of a weight (inputs, outputs)."""


@contextmanager
def quantizers() -> Iterator[None]:
    """Run ONNX Runtime's quantizers without their prints and their advice to pre-process, as `simplify` has done.

    And without two copies of the model, which they make and keep to learn the shapes of its values.
    """
    from onnxruntime.quantization import onnx_quantizer

    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()), replace(onnx_quantizer, WITH_SHAPES, with_shapes):
            yield
    finally:
        logger.setLevel(level)


def with_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model itself, its values' shapes inferred; the pass does that without copying the large weights."""
    import onnx_ir as ir
    from onnx_ir.passes.common import ShapeInferencePass

    inferred = ShapeInferencePass()(ir.from_proto(model)).model
    values = [value for node in inferred.graph for value in node.outputs if not value.is_graph_output()]
    del model.graph.value_info[:]
    model.graph.value_info.extend(ir.serde.serialize_value(value) for value in values if value.type is not None)
    return model


@contextmanager
def weights_scaled_by(scales: Scales) -> Iterator[None]:
    """Have ONNX Runtime quantize INT8 matrices with these scales, all channels at once.

    Its own loop over the channels takes twice the time at 220 M parameters.
    """
    from onnxruntime.quantization.base_quantizer import BaseQuantizer

    with replace(BaseQuantizer, BY_CHANNEL, _quantize_at_once(getattr(BaseQuantizer, BY_CHANNEL), scales)):
        yield


def _quantize_at_once(loop: Callable[..., tuple[str, str, str]], scales: Scales) -> Callable[..., tuple[str, str, str]]:
    """Return a function that quantizes all channels at once, as the loop does one after the other.

    It takes the loop's arguments, adds initializers of the same names and returns those; what is not an INT8 matrix is
    left to the loop.
    """
    import onnx

    def quantize_weight(quantizer: Any, name: str, kind: int, axis: int, *rest: Any) -> tuple[str, str, str]:
        tensor = quantizer.model.get_initializer(name)
        if kind != onnx.TensorProto.INT8 or len(tensor.dims) != 2:
            return loop(quantizer, name, kind, axis, *rest)
        weight = onnx.numpy_helper.to_array(tensor)
        outputs_last = axis % 2 == 1
        scale = scales(weight if outputs_last else weight.T)
        numbers = np.rint(weight / (scale if outputs_last else scale[:, None])).astype(np.int8)
        names = (f"{name}_quantized", f"{name}_zero_point", f"{name}_scale")
        made: tuple[NDArray[Any], ...] = (numbers, np.zeros(len(scale), np.int8), scale)
        quantizer.model.initializer_extend(list(map(onnx.numpy_helper.from_array, made, names)))
        return names

    return quantize_weight
