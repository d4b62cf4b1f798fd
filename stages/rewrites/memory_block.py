"""The memory block of FSMN: a depthwise convolution along the last axis, its residual connection in the last tap.

Zhang, Liu, Jiang, Wei & Dai, "Feedforward Sequential Memory Networks", 2015. FunASR computes p + conv([cache, p]) with
time along the height of an image of width 1, for which ONNX Runtime's blocked convolution (NCHWc, the channels in
vectors) has nothing to do side by side; with time along the width it is several times as fast. What is added to
itself is the convolution's newest input, so its weight of 1 goes into the last tap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stages.rewrites import apply, constant, initializer

if TYPE_CHECKING:
    import onnx_ir as ir


def rewrite(model: ir.Model) -> tuple[ir.Model, int]:
    """Rewrite the memory blocks; return the new model and how many. Caches stay (1, channels, taps - 1, 1)."""
    from onnxscript.rewriter import pattern

    # A pattern of two outputs is searched in the whole graph at each node: seconds for Paraformer-large, in vain.
    if not any(_is_causal(None, node.inputs[1], node.outputs[0]) for node in model.graph if node.op_type == "Conv"):
        return model, 0
    new, count = apply(model, [pattern.RewriteRule(_block, _rewritten, _is_causal)])
    return apply(new, [pattern.RewriteRule(_multiply_rows, _multiply_images)])[0], count


def _block(op: Any, inputs: Any, cache: Any, weight: Any, start: Any, end: Any) -> Any:
    columns = op.Transpose(op.Unsqueeze(inputs, [1]), perm=[0, 3, 2, 1])
    seen = op.Concat(cache, columns, axis=2)
    memory = op.Conv(seen, weight, _allow_other_attributes=True, _outputs=["memory"])
    outputs = op.Squeeze(op.Transpose(op.Add(columns, memory), perm=[0, 3, 2, 1]), [1])
    return outputs, op.Slice(seen, start, end, [2], [1])


def _is_causal(_: Any, weight: ir.Value | None, memory: ir.Value, **__: Any) -> bool:
    """Require each channel on its own, a tap for each step and no padding: the last tap meets the newest input."""
    taps, node = constant(weight), memory.producer()
    if taps is None or taps.ndim != 4 or taps.shape[1] != 1 or taps.shape[3] != 1 or node is None:
        return False
    ints = {name: list(node.attributes.get_ints(name, usual)) for name, usual in USUAL.items()}
    return ints == USUAL and node.attributes.get_int("group", 1) == taps.shape[0] and len(node.inputs) == 2


USUAL = {"pads": [0, 0, 0, 0], "strides": [1, 1], "dilations": [1, 1]}


def _rewritten(op: Any, inputs: Any, cache: Any, weight: Any, start: Any, end: Any, **_: Any) -> Any:
    taps = weight.const_value.numpy().transpose(0, 1, 3, 2).copy()
    taps[:, :, :, -1] += 1
    new = initializer(op, taps, f"{weight.name}.with_residual", weight)
    channels, _, _, steps = taps.shape
    one, two = op.Constant(value_ints=[1]), op.Constant(value_ints=[2])
    # Joined with the channels last, where a step is contiguous, and ONNX Runtime transposes as it blocks the channels.
    # It has a fast transpose for one axis that moves, not for two that change places, so caches take a detour.
    past = op.Transpose(op.Reshape(cache, op.Constant(value_ints=[0, 1, channels, steps - 1])), perm=[0, 1, 3, 2])
    seen = op.Concat(past, op.Unsqueeze(inputs, one), axis=2)
    newest = op.Transpose(op.Slice(seen, start, end, two, one), perm=[0, 1, 3, 2])
    kept = op.Reshape(newest, op.Constant(value_ints=[0, channels, steps - 1, 1]))
    memory = op.Conv(op.Transpose(seen, perm=[0, 3, 1, 2]), new, group=channels, kernel_shape=[1, steps])
    return op.Squeeze(op.Transpose(memory, perm=[0, 2, 3, 1]), one), kept


def _multiply_rows(op: Any, image: Any, first: Any, bias: Any, second: Any) -> Any:
    rows = op.Squeeze(image, [1])
    return op.Unsqueeze(op.MatMul(op.Relu(op.Add(op.MatMul(rows, first), bias)), second), [1])


def _multiply_images(op: Any, image: Any, first: Any, bias: Any, second: Any) -> Any:
    """Multiply without leaving the image: for a chunk, a reshape costs as much as a small layer."""
    return op.MatMul(op.Relu(op.Add(op.MatMul(image, first), bias)), second)
