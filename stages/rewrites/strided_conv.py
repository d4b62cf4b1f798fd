"""A convolution over time whose windows meet, or share one frame, as one matrix product over frames.

Extractors that downsample a waveform have them: Baevski et al., "wav2vec 2.0", 2020. With a hop of s frames, s frames
in a row, channels last, are one window, and one of s + 1 has the first of the next s too. Nothing is transposed for the
normalization between the layers, and INT8 kernels take the product.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stages.rewrites import MICROSOFT, apply, constant, initializer

if TYPE_CHECKING:
    import onnx_ir as ir

LAST = 2**63 - 1


def rewrite(model: ir.Model) -> tuple[ir.Model, int]:
    """Turn such convolutions between transposes into products, after `gelu`; return the new model and how many."""
    from onnxscript.rewriter import pattern

    moved, _ = apply(model, [pattern.RewriteRule(_activated, _channels_last)])
    return apply(moved, [pattern.RewriteRule(_conv, _product, _is_strided)])


def _activated(op: Any, x: Any) -> Any:
    return op.Gelu(op.Transpose(x, perm=[0, 2, 1]), _domain=MICROSOFT)


def _channels_last(op: Any, x: Any) -> Any:
    activated = op.Gelu(x, _domain=MICROSOFT, _version=1)
    activated.type, activated.shape = x.type, x.shape  # which nothing infers of another domain's operator
    return op.Transpose(activated, perm=[0, 2, 1])


def _conv(op: Any, x: Any, weight: Any) -> Any:
    conv = op.Conv(op.Transpose(x, perm=[0, 2, 1]), weight, _allow_other_attributes=True, _outputs=["conv"])
    return op.Transpose(conv, perm=[0, 2, 1])


def _is_strided(_: Any, weight: ir.Value, conv: ir.Value, **__: Any) -> bool:
    """Require all channels together, no padding, no gaps between taps, and a hop of all taps or one fewer."""
    taps, node = constant(weight), conv.producer()
    if taps is None or taps.ndim != 3 or node is None or len(node.inputs) != 2:
        return False
    (hop,) = node.attributes.get_ints("strides", [1])
    plain = list(node.attributes.get_ints("pads", [0, 0])) == [0, 0] and node.attributes.get_int("group", 1) == 1
    return plain and list(node.attributes.get_ints("dilations", [1])) == [1] and 0 <= taps.shape[2] - hop <= 1


def _product(op: Any, x: Any, weight: Any, conv: Any) -> Any:
    def ints(*values: int) -> Any:
        return op.Constant(value_ints=values)

    taps = weight.const_value.numpy()
    outputs, channels, size = taps.shape
    (hop,) = conv.producer().attributes.get_ints("strides", [1])
    shared = op.Slice(x, ints(hop), ints(LAST), ints(1), ints(hop)) if size > hop else None  # one for each window
    windows = op.Div(op.Shape(x, start=1, end=2), ints(hop)) if shared is None else op.Shape(shared, start=1, end=2)
    whole = op.Slice(x, ints(0), op.Mul(windows, ints(hop)), ints(1), ints(1))
    rows = op.Reshape(whole, ints(0, -1, hop * channels))
    matrix = taps.transpose(2, 1, 0).reshape(size * channels, outputs).copy()
    gathered = rows if shared is None else op.Concat(rows, shared, axis=2)
    return op.MatMul(gathered, initializer(op, matrix, f"{weight.name}.matrix", weight))
