"""SenseVoiceSmall's network: FunASR's module, and one graph from features and two questions to logits of all tokens."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from stages.core.graphs import Axis, Case, Graph, GraphSet, Tensor
from stages.models.paraformer.network import CASES, FRAME_SECONDS, MINUTE, USUAL
from stages.models.paraformer.schema import RecognizerFrontend
from stages.models.sensevoice import schema
from stages.models.shared import checkpoint, cmvn, pieces, sanm, sherpa
from stages.pruning.narrowing import HEADS

SCHEMAS = {"SenseVoiceSmall": schema.SenseVoice}
EMOTION_AND_EVENT = (1, 2)  # rows of the table of queries, as are the values of `language` and `textnorm`
QUERIES = 4  # positions before those of the audio: language, emotion, event, text normalisation


def read_config(folder: Path) -> dict[str, Any]:
    """Read config.yaml of a checkpoint, with `vocab_size` from its SentencePiece model, as FunASR adds it.

    Raises:
        UserError: it is not what the schema wants, or am.mvn or the SentencePiece model does not fit it.
    """
    return _read_typed(folder)[0]


def _read_typed(folder: Path) -> tuple[dict[str, Any], schema.SenseVoice]:
    config, typed = checkpoint.read_config(folder, "sensevoice", SCHEMAS)
    cmvn.check(folder, typed.frontend_conf.size)
    return config | {"vocab_size": len(pieces.read(folder, typed.vocab_size))}, typed


def build(config: dict[str, Any]) -> Any:
    """Build FunASR's module for a configuration, with random weights, in evaluation mode."""
    with checkpoint.importing_funasr():
        from funasr.models.sense_voice.model import SenseVoiceSmall

    model = SenseVoiceSmall(
        **config.get("model_conf", {}),
        encoder=config["encoder"],
        encoder_conf=sanm.funasr_conf(config["encoder_conf"]),
        ctc_conf=sanm.funasr_conf(config.get("ctc_conf") or {}),
        input_size=RecognizerFrontend.model_validate(config["frontend_conf"]).size,
        vocab_size=config["vocab_size"],
    ).eval()
    sanm.keep_heads(model, config)
    return model


def with_widths(config: dict[str, Any], new: Mapping[str, int]) -> dict[str, Any]:
    """Return the configuration with some widths changed; a number of heads stands in `ctc_conf` too.

    FunASR's encoder takes any key, and would be loaded without the attention's weights; its CTC stops at this one.
    """
    config = sanm.with_widths(config, new)
    kept = {key: width for key, width in config["encoder_conf"].items() if key == HEADS}
    return config | {"ctc_conf": (config.get("ctc_conf") or {}) | kept} if kept else config


def load(folder: Path) -> Any:
    """Load the checkpoint as FunASR's own module, in evaluation mode.

    Raises:
        UserError: config.yaml, model.pt or a file of tokens is not what the family needs.
    """
    return checkpoint.load(build, read_config(folder), folder)


class Recognizer(torch.nn.Module):
    """Queries, encoder and last layer as FunASR's `inference` runs them."""

    def __init__(self, model: Any) -> None:
        """Share the parts of `model`."""
        super().__init__()
        self.embed, self.encoder, self.last = model.embed, model.encoder, model.ctc.ctc_lo

    def forward(
        self, speech: torch.Tensor, speech_lengths: torch.Tensor, language: torch.Tensor, textnorm: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute logits (batch, QUERIES + frames, vocab) and how many positions each recording has, int32 (batch,).

        speech: float32 (batch, frames, input_size). speech_lengths: int32 (batch,). language, textnorm: int32 (batch,),
        rows of FunASR's table of queries.
        """
        inputs, lengths = ask(self.embed, speech, language, textnorm), speech_lengths + QUERIES
        inside = sanm.mask(lengths, torch.arange(inputs.shape[1]))
        logits: torch.Tensor = self.last(encode(self.encoder, inputs, inside))
        return logits, lengths


def ask(embed: Any, speech: torch.Tensor, language: torch.Tensor, textnorm: torch.Tensor) -> torch.Tensor:
    """Put the queries before features (batch, frames, input_size): (batch, QUERIES + frames, input_size)."""
    constant = [torch.full_like(language, row) for row in EMOTION_AND_EVENT]
    return torch.cat([embed(torch.stack([language, *constant, textnorm], dim=1)), speech], dim=1)


def encode(encoder: Any, inputs: torch.Tensor, inside: sanm.Mask | None) -> torch.Tensor:
    """Run FunASR's SenseVoiceEncoderSmall over (batch, time, input_size): (batch, time, output_size)."""
    hidden = sanm.run_blocks(encoder.tp_encoders, sanm.encode(encoder, inputs, inside), inside)
    encoded: torch.Tensor = encoder.tp_norm(hidden)
    return encoded


def graph_set(model: Any) -> GraphSet:
    """Describe the graph with FunASR's names."""
    size, usual = model.encoder.encoders0[0].in_size, {name: round(s / FRAME_SECONDS) for name, s in CASES.items()}
    query = Tensor(dtype="int32", shape=["batch"], below=model.embed.num_embeddings)
    graph = Graph(
        file="model.onnx",
        inputs={
            "speech": Tensor(dtype="float32", shape=["batch", "feats_length", size]),
            "speech_lengths": Tensor(dtype="int32", shape=["batch"], length_of="feats_length"),
            "language": query,
            "textnorm": query,
        },
        outputs={
            "ctc_logits": Tensor(dtype="float32", shape=["batch", "logits_length", model.vocab_size]),
            "encoder_out_lens": Tensor(dtype="int32", shape=["batch"]),
        },
        states={},
        axes={"batch": Axis(min=1, opt=1, max=8), "feats_length": Axis(min=1, opt=USUAL, max=MINUTE)},
    )
    cases = {n: Case(sizes={"batch": 1, "feats_length": usual[n]}, seconds=seconds) for n, seconds in CASES.items()}
    return GraphSet(graphs={"model": graph}, cases=cases)


def export_modules(model: Any) -> dict[str, torch.nn.Module]:
    """Return the module behind each graph of `graph_set`."""
    return {"model": Recognizer(model)}


def metadata(folder: Path) -> dict[str, sherpa.Metadata]:
    """Return what sherpa-onnx reads in the graph's file."""
    config, typed = _read_typed(folder)
    model = checkpoint.weightless(build, config)  # FunASR has the queries' numbers nowhere else
    features = sherpa.recognizer(folder, typed.frontend_conf, config["vocab_size"])
    return {"model": features | sherpa.queries(model.lid_dict, model.textnorm_dict)}
