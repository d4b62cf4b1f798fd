"""SenseVoice as sherpa-onnx's scripts/sense-voice/export-onnx.py exports it, imported by benchmarks/peers/funasr.py.

That script is not run: it downloads the hub's checkpoint. The graph has FunASR's names, and the lengths as a second
output, without which Kiln could not run it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from onnxruntime.quantization import QuantType, quantize_dynamic

OPSET = 13
EMOTION_AND_EVENT = [1, 2]  # rows of the table of queries
SHAPES = {
    "speech": {0: "N", 1: "T"},
    "speech_lengths": {0: "N"},
    "language": {0: "N"},
    "textnorm": {0: "N"},
    "ctc_logits": {0: "N", 1: "T"},
}


class Recognizer(torch.nn.Module):
    """FunASR's SenseVoiceSmall from features and questions to logits."""

    def __init__(self, model: Any) -> None:
        """Share the parts of `model`."""
        super().__init__()
        self.embed, self.encoder, self.last = model.embed, model.encoder, model.ctc.ctc_lo

    def forward(
        self, speech: torch.Tensor, lengths: torch.Tensor, language: torch.Tensor, textnorm: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute logits (batch, 4 + frames, vocabulary) and how many positions each recording has."""
        constant = self.embed(torch.tensor([EMOTION_AND_EVENT])).repeat(speech.shape[0], 1, 1)
        queries = [self.embed(language)[:, None], constant, self.embed(textnorm)[:, None]]
        encoded, lengths = self.encoder(torch.cat([*queries, speech], dim=1), lengths + 4)
        return self.last(encoded), lengths


def export(model: Any, place: Path) -> None:
    """Export FunASR's module and quantize its MatMul to `place`, with that script's inputs and settings."""
    size = model.encoder.encoders0[0].in_size
    plain = place.with_name("plain.onnx")
    lengths_and_queries = [torch.tensor(values, dtype=torch.int32) for values in ([80, 100], [0, 3], [14, 15])]
    torch.onnx.export(
        Recognizer(model).eval(),
        (torch.randn(2, 100, size), *lengths_and_queries),
        plain,
        opset_version=OPSET,
        input_names=list(SHAPES)[:4],
        output_names=["ctc_logits", "encoder_out_lens"],
        dynamic_axes=SHAPES,
    )
    quantize_dynamic(plain, place, op_types_to_quantize=["MatMul"], weight_type=QuantType.QUInt8)
