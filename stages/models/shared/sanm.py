"""SAN-M networks written for export: FunASR's own layers and weights, called with masks made once from lengths.

Gao, Zhang, Lei & McLoughlin, "SAN-M: Memory Equipped Self-Attention for End-to-End Speech Recognition", 2020:
attention plus an FSMN memory (a depthwise convolution over time) of the values. FunASR's forward makes masks whose
size depends on the data and selects with -inf in every layer, which the exporter refuses and a graph pays for;
these functions give the same numbers. A padded query is computed as FunASR computes it: a convolution further on
may look at it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from stages.core.errors import UserError
from stages.pruning.narrowing import HEADS

BLOCKED = -10_000.0  # added to a score: its exponential is 0 in fp32, and fp16 can hold it


@dataclass(frozen=True)
class Mask:
    """Where a padded batch holds anything.

    rows: (batch, time, 1), 1 inside and 0 in the padding. keys: what is added to attention scores over time,
    (batch, 1, 1, time).
    """

    rows: torch.Tensor
    keys: torch.Tensor


def mask(lengths: torch.Tensor, positions: torch.Tensor) -> Mask:
    """Make the mask of `lengths` (batch,) over `positions` 0, 1, ... (time,)."""
    inside = (positions < lengths[:, None]).float()
    return Mask(rows=inside[:, :, None], keys=BLOCKED * (1 - inside)[:, None, None, :])


def encode(encoder: Any, inputs: torch.Tensor, inside: Mask | None) -> torch.Tensor:
    """Run FunASR's SANMEncoder over (batch, time, input_size): (batch, time, output_size). No mask: no padding."""
    hidden = inputs * encoder.output_size() ** 0.5
    if encoder.embed is not None:
        hidden = encoder.embed(hidden)
    return encode_blocks(encoder, hidden, inside)


def encode_blocks(encoder: Any, hidden: torch.Tensor, inside: Mask | None) -> torch.Tensor:
    """Run the layers of an encoder after its embedding (batch, time, input_size): (batch, time, output_size)."""
    encoded: torch.Tensor = encoder.after_norm(run_blocks((*encoder.encoders0, *encoder.encoders), hidden, inside))
    return encoded


def run_blocks(blocks: Iterable[Any], hidden: torch.Tensor, inside: Mask | None) -> torch.Tensor:
    """Run encoder layers one after the other over (batch, time, size); the first may have another input size."""
    for layer in blocks:
        attended = self_attention(layer.self_attn, layer.norm1(hidden), inside)
        hidden = hidden + attended if layer.in_size == layer.size else attended
        hidden = hidden + layer.feed_forward(layer.norm2(hidden))
    return hidden


def decode(
    decoder: Any, embeds: torch.Tensor, inside: Mask | None, memory: torch.Tensor, keys: torch.Tensor | None
) -> torch.Tensor:
    """Run FunASR's ParaformerSANMDecoder up to its output layer: (batch, tokens, size).

    embeds: acoustic embeddings (batch, tokens, size). memory: what the encoder gave (batch, time, size). keys: what is
    added to the scores of attention to it.
    """
    for layer in (*decoder.decoders, *(decoder.decoders2 or ())):
        embeds = decode_block(layer, embeds, inside, memory, keys)
    for layer in decoder.decoders3:
        embeds = layer.feed_forward(layer.norm1(embeds))
    decoded: torch.Tensor = decoder.after_norm(embeds)
    return decoded


def decode_block(
    layer: Any, embeds: torch.Tensor, inside: Mask | None, memory: torch.Tensor, keys: torch.Tensor | None
) -> torch.Tensor:
    """Run one decoder layer: feed-forward, FSMN memory, and attention to the encoder where the layer has one."""
    embeds = embeds + fsmn(layer.self_attn, layer.norm2(layer.feed_forward(layer.norm1(embeds))), inside)
    if layer.src_attn is None:
        return embeds
    attended, _ = cross_attention(layer.src_attn, layer.norm3(embeds), memory, keys)
    return embeds + attended


def self_attention(attention: Any, inputs: torch.Tensor, inside: Mask | None) -> torch.Tensor:
    """Run FunASR's MultiHeadedAttentionSANM: (batch, time, size). The memory is of all values, whatever heads stay."""
    width, size = attention.h * attention.d_k, attention.linear_out.out_features
    query, key, value = attention.linear_q_k_v(inputs).split([width, width, size], dim=-1)
    attended = value if width == size else value.index_select(-1, attention.value_channels)
    context, _ = _attend(attention, query, key, attended, None if inside is None else inside.keys)
    return context + fsmn(attention, value, inside)


def cross_attention(
    attention: Any, inputs: torch.Tensor, memory: torch.Tensor, keys: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run FunASR's MultiHeadedAttentionCrossAtt: (batch, tokens, size), and weights (batch, heads, tokens, time)."""
    key, value = attention.linear_k_v(memory).chunk(2, dim=-1)
    return _attend(attention, attention.linear_q(inputs), key, value, keys)


def _attend(
    attention: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, keys: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    heads = (attention.h, attention.d_k)
    query, key, value = (x.unflatten(-1, heads).transpose(1, 2) for x in (query, key, value))  # type: ignore[no-untyped-call]
    scores = (query * attention.d_k**-0.5) @ key.transpose(-2, -1)
    weights = torch.softmax(scores if keys is None else scores + keys, dim=-1)
    context: torch.Tensor = attention.linear_out((weights @ value).transpose(1, 2).flatten(-2))
    return context, weights


def fsmn(block: Any, inputs: torch.Tensor, inside: Mask | None) -> torch.Tensor:
    """Add the FSMN memory of `inputs` (batch, time, size) to the inputs; zero in the padding."""
    inputs = inputs if inside is None else inputs * inside.rows
    remembered: torch.Tensor = block.fsmn_block(block.pad_fn(inputs.transpose(1, 2))).transpose(1, 2) + inputs
    return remembered if inside is None else remembered * inside.rows


# Fewer heads. FunASR's classes have as many as divide the width, so the number of those kept is a key of our own, at
# which FunASR stops: a checkpoint that it would otherwise load without the attention's weights, and not say so.


def funasr_conf(conf: Mapping[str, Any]) -> dict[str, Any]:
    """Return a section of config.yaml as FunASR's class takes it."""
    return {key: value for key, value in conf.items() if key != HEADS}


def keep_heads(model: Any, config: Mapping[str, Any]) -> None:
    """Make room in FunASR's module for the weights of as many heads as its configuration keeps.

    A self-attention gets a buffer `value_channels`, int64 (heads * d_k,): which values the kept heads attend with.

    Raises:
        UserError: the configuration keeps more heads than there are, or none.
    """
    for section in ("encoder", "decoder"):
        kept = config.get(f"{section}_conf", {}).get(HEADS)
        if kept is None:
            continue
        for attention in getattr(model, section).modules():
            if hasattr(attention, "linear_q_k_v") or hasattr(attention, "linear_k_v"):
                if not isinstance(kept, int) or not 0 < kept <= attention.h:
                    raise UserError(f"config.yaml: found {section}_conf.{HEADS} {kept!r}, wanted 1 to {attention.h}")
                _narrow(attention, kept)


def _narrow(attention: Any, heads: int) -> None:
    width, size = heads * attention.d_k, attention.linear_out.out_features
    if hasattr(attention, "linear_q_k_v"):
        attention.linear_q_k_v = torch.nn.Linear(attention.linear_q_k_v.in_features, 2 * width + size)
        attention.register_buffer("value_channels", torch.zeros(width, dtype=torch.int64))
    else:
        attention.linear_q = torch.nn.Linear(attention.linear_q.in_features, width)
        attention.linear_k_v = torch.nn.Linear(attention.linear_k_v.in_features, 2 * width)
    attention.linear_out = torch.nn.Linear(width, size)
    attention.h = heads


def with_widths(config: dict[str, Any], new: Mapping[str, int]) -> dict[str, Any]:
    """Return the configuration with some widths, named as {"encoder_conf.linear_units": 1024}, changed."""
    for key, width in new.items():
        section, name = key.split(".")
        config = config | {section: config[section] | {name: width}}
    return config
