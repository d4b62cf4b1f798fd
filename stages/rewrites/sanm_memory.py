"""The memory of SAN-M: a depthwise convolution over time along the last axis, its residual connection in a tap.

Gao, Zhang, Lei & McLoughlin, "SAN-M: Memory Equipped Self-Attention for End-to-End Speech Recognition", 2020. As an
image of height 1 the convolution gets ONNX Runtime's blocked kernel (NCHWc), and the transposes on both sides become
part of the blocking.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stages.rewrites import apply, constant, initializer

if TYPE_CHECKING:
    import onnx_ir as ir


def rewrite(model: ir.Model) -> tuple[ir.Model, int]:
    """Rewrite the memories of SAN-M; return the new model and how many."""
    from onnxscript.rewriter import pattern

    return apply(model, [pattern.RewriteRule(_memory, _rewritten, _is_aligned)])


def _memory(op: Any, inputs: Any, weight: Any) -> Any:
    remembered = op.Conv(op.Transpose(inputs, perm=[0, 2, 1]), weight, _outputs=["remembered"])
    return op.Add(op.Transpose(remembered, perm=[0, 2, 1]), inputs)


def _is_aligned(_: Any, weight: ir.Value, remembered: ir.Value, **__: Any) -> bool:
    """Require each channel on its own, and as many steps out as in."""
    taps, node = constant(weight), remembered.producer()
    if taps is None or taps.ndim != 3 or taps.shape[1] != 1 or node is None or len(node.inputs) != 2:
        return False
    attributes = node.attributes
    steps = (list(attributes.get_ints("strides", [1])), list(attributes.get_ints("dilations", [1])))
    pads = attributes.get_ints("pads", [0, 0])
    channels = attributes.get_int("group", 1)
    return steps == ([1], [1]) and sum(pads) == taps.shape[2] - 1 and channels == taps.shape[0]


def _rewritten(op: Any, inputs: Any, weight: Any, remembered: Any) -> Any:
    before, after = remembered.producer().attributes.get_ints("pads", [0, 0])
    taps = weight.const_value.numpy()[:, :, None].copy()
    taps[:, :, :, before] += 1
    new, one = initializer(op, taps, f"{weight.name}.with_residual", weight), op.Constant(value_ints=[1])
    image = op.Transpose(op.Unsqueeze(inputs, one), perm=[0, 3, 1, 2])
    memory = op.Conv(image, new, group=taps.shape[0], kernel_shape=[1, taps.shape[3]], pads=[0, before, 0, after])
    return op.Squeeze(op.Transpose(memory, perm=[0, 2, 3, 1]), one)
