"""SAN-M layers with fewer heads say what FunASR's own say when the weights that read the others are zero."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from stages.models.shared import checkpoint, sanm
from stages.pruning import narrowing

SIZES = {"attention_heads": 4, "linear_units": 24}
ENCODER = SIZES | {"output_size": 16, "num_blocks": 2, "input_layer": "pe"}
DECODER = SIZES | {"num_blocks": 2, "att_layer_num": 2, "kernel_size": 11}


def build(encoder: dict[str, Any], decoder: dict[str, Any]) -> Any:
    """FunASR's encoder and decoder."""
    with checkpoint.importing_funasr():
        from funasr.models.paraformer.decoder import ParaformerSANMDecoder
        from funasr.models.sanm.encoder import SANMEncoder
    torch.manual_seed(0)
    model = torch.nn.Module()
    model.encoder = SANMEncoder(20, **sanm.funasr_conf(encoder))
    model.decoder = ParaformerSANMDecoder(vocab_size=10, encoder_output_size=16, **sanm.funasr_conf(decoder))
    sanm.keep_heads(model, {"encoder_conf": encoder, "decoder_conf": decoder})
    return model.eval()


@pytest.mark.parametrize("gone", [[0], [1, 2], [0, 1, 3]])
def test_heads_that_go_are_heads_that_nobody_reads(gone: list[int]):
    dense = build(ENCODER, DECODER)
    heads = {name: layer for name, layer in narrowing.layers(dense).items() if layer.unit == 4}
    assert len(heads) == 4
    with torch.no_grad():
        for layer in heads.values():
            layer.reader.weight.unflatten(1, (4, 4))[:, gone] = 0
    kept = {"kept_heads": 4 - len(gone)}
    small = build(ENCODER | kept, DECODER | kept)
    speech, embeds = torch.randn(2, 30, 20), torch.randn(2, 8, 16)
    frames, tokens = (sanm.mask(torch.tensor(n), torch.arange(max(n))) for n in ([30, 17], [8, 3]))

    def run(model: Any) -> torch.Tensor:
        encoded = sanm.encode(model.encoder, speech, frames)
        return sanm.decode(model.decoder, embeds * tokens.rows, tokens, encoded, frames.keys)

    narrowing.cut(dense, small, run, lambda _, hidden: torch.ones(hidden.shape[:-1], dtype=torch.bool), "activation", 1)
    with torch.no_grad():
        encoded, lengths, _ = dense.encoder(speech, torch.tensor([30, 17]))
        wanted, _ = dense.decoder(encoded, lengths, embeds * tokens.rows, torch.tensor([8, 3]), return_hidden=True)
        found = run(small)
    torch.testing.assert_close(found[0], wanted[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(found[1, :3], wanted[1, :3], atol=1e-5, rtol=0)
