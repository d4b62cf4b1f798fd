"""Attention of several heads as ONNX Runtime's MultiHeadAttention, which needs no heads transposed in memory.

Vaswani et al., "Attention Is All You Need", 2017. A mask over the keys, 0 or `sanm.BLOCKED` added to the scores,
becomes the operator's `key_padding_mask`, which adds the same number, so that padded batches stay right.
onnxscript's own fusion expands the mask to the size of the scores in every layer, and ONNX Runtime's finds nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stages.rewrites import MICROSOFT, apply, constant

if TYPE_CHECKING:
    import onnx_ir as ir

BLOCKED = -10_000.0  # stages.models.shared.sanm.BLOCKED, and the operator's own mask_filter_value


def rewrite(model: ir.Model) -> tuple[ir.Model, int]:
    """Replace attention, to itself or to another sequence, by one operator; return the new model and how many."""
    from onnxscript.rewriter import pattern

    return apply(
        model,
        [
            pattern.RewriteRule(_masked, _fused, _is_attention),
            pattern.RewriteRule(_unmasked, _fused, _is_attention),
            pattern.RewriteRule(_packed, _unpacked, _is_packed),
        ],
    )


def _scores(op: Any, query: Any, key: Any, query_shape: Any, key_shape: Any, scale: Any) -> Any:
    heads = op.Reshape(query, query_shape, _outputs=["heads"])
    scaled = op.Mul(op.Transpose(heads, perm=[0, 2, 1, 3]), scale)
    return op.MatMul(scaled, op.Transpose(op.Reshape(key, key_shape), perm=[0, 2, 3, 1]))


def _context(op: Any, scores: Any, value: Any, value_shape: Any, shape: Any) -> Any:
    heads = op.Transpose(op.Reshape(value, value_shape), perm=[0, 2, 1, 3])
    context = op.Transpose(op.MatMul(op.Softmax(scores, axis=-1), heads), perm=[0, 2, 1, 3])
    return op.Reshape(context, shape)


def _masked(  # noqa: PLR0913, PLR0917  onnxscript takes a pattern's variables as arguments
    op: Any, query: Any, key: Any, value: Any, mask: Any, scale: Any, query_shape: Any, key_shape: Any,
    value_shape: Any, shape: Any,
) -> Any:  # fmt: skip
    scores = op.Add(_scores(op, query, key, query_shape, key_shape, scale), mask)
    return _context(op, scores, value, value_shape, shape)


def _unmasked(  # noqa: PLR0913, PLR0917
    op: Any, query: Any, key: Any, value: Any, scale: Any, query_shape: Any, key_shape: Any, value_shape: Any,
    shape: Any,
) -> Any:  # fmt: skip
    return _context(op, _scores(op, query, key, query_shape, key_shape, scale), value, value_shape, shape)


def _is_attention(_: Any, heads: ir.Value, scale: ir.Value, mask: ir.Value | None = None, **__: Any) -> bool:
    """Require heads of a known number and width, one scale, and a mask as `stages.models.shared.sanm` makes it."""
    factor = constant(scale)
    sizes = heads.shape and list(heads.shape)
    known = sizes is not None and len(sizes) == 4 and all(isinstance(size, int) for size in sizes[2:])
    return known and factor is not None and factor.size == 1 and (mask is None or _is_mask(mask))


def _is_mask(mask: ir.Value) -> bool:
    """Tell whether a mask has shape (batch, 1, 1, keys) and is made as something times BLOCKED."""
    node = mask.producer()
    shape = mask.shape and list(mask.shape)
    if node is None or node.op_type != "Mul" or shape is None or shape[1:3] != [1, 1]:
        return False
    factors = [constant(value) for value in node.inputs]
    return any(factor is not None and factor.size == 1 and factor.item() == BLOCKED for factor in factors)


def _fused(  # noqa: PLR0917
    op: Any, query: Any, key: Any, value: Any, heads: Any, scale: Any, mask: Any = None, **_: Any
) -> Any:
    import onnx_ir as ir

    settings = {"num_heads": heads.shape[2], "scale": constant(scale).item(), "_domain": MICROSOFT, "_version": 1}  # type: ignore[union-attr]
    if mask is None:
        return op.MultiHeadAttention(query, key, value, **settings)
    kept = op.Greater(op.Squeeze(mask, op.Constant(value_ints=[1, 2])), op.Constant(value_float=BLOCKED / 2))
    return op.MultiHeadAttention(query, key, value, None, op.Cast(kept, to=ir.DataType.INT32), **settings)


# Queries, keys and values of one layer, taken apart by transposing all of them, and a bias on the scores: emotion2vec


def _packed(op: Any, packed: Any, packed_shape: Any, scale: Any, bias: Any, shape: Any) -> Any:
    heads = op.Transpose(op.Reshape(packed, packed_shape, _outputs=["heads"]), perm=[2, 0, 3, 1, 4])
    query, key, value = (op.Gather(heads, index, axis=0) for index in range(3))
    scores = op.MatMul(op.Mul(query, scale), op.Transpose(key, perm=[0, 1, 3, 2]))
    context = op.MatMul(op.Softmax(op.Add(scores, bias), axis=-1), value)
    return op.Reshape(op.Transpose(context, perm=[0, 2, 1, 3]), shape)


def _is_packed(_: Any, heads: ir.Value, scale: ir.Value, bias: ir.Value, **__: Any) -> bool:
    """Require heads of a known number and width, one scale for all, and a bias for each head or one for all."""
    factor, sizes = constant(scale), heads.shape and list(heads.shape)
    if factor is None or factor.size != 1 or sizes is None or bias.shape is None or len(bias.shape) != 4:
        return False
    return sizes[2] == 3 and all(isinstance(size, int) for size in sizes[2:]) and bias.shape[1] in {1, sizes[3]}


def _unpacked(op: Any, packed: Any, heads: Any, scale: Any, bias: Any, **_: Any) -> Any:
    query, key, value = op.Split(packed, axis=-1, num_outputs=3, _outputs=3)
    settings = {"num_heads": heads.shape[3], "scale": constant(scale).item(), "_domain": MICROSOFT, "_version": 1}  # type: ignore[union-attr]
    return op.MultiHeadAttention(query, key, value, None, None, bias, **settings)
