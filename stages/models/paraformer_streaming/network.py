"""Streaming Paraformer's network: FunASR's module, an encoder graph for 600 ms, and a decoder graph with caches."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from stages.core.graphs import Axis, Case, Graph, GraphSet, Tensor
from stages.corpora.manifest import SAMPLE_RATE
from stages.models.paraformer.network import arguments, read_typed
from stages.models.paraformer_streaming.schema import Streaming
from stages.models.shared import checkpoint, cmvn, sanm, sherpa

if TYPE_CHECKING:
    from funasr.frontends.wav_frontend import WavFrontendOnline
    from funasr.models.paraformer_streaming.model import ParaformerStreaming

CHUNK = (5, 10, 5)  # frames of 60 ms: left context, chunk, right context; the default of FunASR's ONNX runtime
CHUNK_SECONDS = 0.6
CHUNK_SAMPLES = round(CHUNK_SECONDS * SAMPLE_RATE)
CHUNK_TOKENS = 3  # in that time, of Mandarin
SCHEMAS = {"ParaformerStreaming": Streaming}


def read_config(folder: Path) -> dict[str, Any]:
    """Read config.yaml of a checkpoint, with `vocab_size` from its tokens.json, as FunASR adds it.

    Raises:
        UserError: it is not what the schema wants, or am.mvn or tokens.json does not fit it.
    """
    return read_typed(folder, "paraformer_streaming", SCHEMAS)[0]


def build(config: dict[str, Any]) -> ParaformerStreaming:
    """Build FunASR's module for a configuration, with random weights, in evaluation mode."""
    with checkpoint.importing_funasr():
        # These register the classes that the configuration names.
        import funasr.models.paraformer.cif_predictor
        import funasr.models.paraformer.decoder
        import funasr.models.scama.encoder  # noqa: F401
        from funasr.models.paraformer_streaming.model import ParaformerStreaming

    model = ParaformerStreaming(**config["model_conf"], **arguments(config)).eval()
    sanm.keep_heads(model, config)
    return model


def load(folder: Path) -> ParaformerStreaming:
    """Load the checkpoint as FunASR's own module, in evaluation mode.

    Raises:
        UserError: config.yaml or model.pt is not what the family needs.
    """
    return checkpoint.load(build, read_config(folder), folder)


def load_frontend(folder: Path, config: dict[str, Any]) -> WavFrontendOnline:
    """Load FunASR's streaming front end with the checkpoint's CMVN, without dither."""
    with checkpoint.importing_funasr():
        from funasr.frontends.wav_frontend import WavFrontendOnline

    settings = config["frontend_conf"] | {"cmvn_file": str(folder / cmvn.FILE), "dither": 0.0}
    return WavFrontendOnline(**settings)


class ExportedEncoder(torch.nn.Module):
    """Encoder and the convolution of the predictor, for features that are scaled and have their positions added."""

    def __init__(self, model: ParaformerStreaming) -> None:
        """Share the parts of `model`."""
        super().__init__()
        self.encoder, self.predictor = model.encoder, model.predictor

    def forward(self, speech: torch.Tensor, speech_lengths: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Encode to (batch, frames, size), with lengths (batch,) and the weight of each frame (batch, frames).

        speech: float32 (batch, frames, input_size). speech_lengths: int32 (batch,).
        """
        inside = sanm.mask(speech_lengths, torch.arange(speech.shape[1]))
        encoded = sanm.encode_blocks(self.encoder, speech, inside)
        return encoded, speech_lengths.clone(), frame_weights(self.predictor, encoded, inside)


def frame_weights(predictor: Any, encoded: torch.Tensor, inside: sanm.Mask) -> torch.Tensor:
    """Compute how much of a token each frame is (batch, frames), from its neighbours alone; 0 in the padding."""
    context = predictor.pad((encoded * inside.rows).transpose(1, 2))
    weights = predictor.cif_output(torch.relu(predictor.cif_conv1d(context)).transpose(1, 2)).sigmoid()
    weights = torch.relu(weights * predictor.smooth_factor - predictor.noise_threshold) * inside.rows
    return weights.squeeze(-1)


class ExportedDecoder(torch.nn.Module):
    """Decoder with the inputs of each block's FSMN memory as caches: as many inputs as it has blocks.

    The exporter takes the names of the inputs from the signature, so each instance has its own. A row of a batch
    keeps the caches of its own last tokens, however many the longest row has; with no token it keeps what it had.
    """

    def __init__(self, model: ParaformerStreaming) -> None:
        """Share the decoder of `model`."""
        super().__init__()
        self.decoder = model.decoder
        inputs = ["enc", "enc_len", "acoustic_embeds", "acoustic_embeds_len", *_states(model)]
        self.forward = _with_signature(self.forward, inputs)  # type: ignore[method-assign]

    def forward(
        self,
        enc: torch.Tensor,
        enc_len: torch.Tensor,
        acoustic_embeds: torch.Tensor,
        acoustic_embeds_len: torch.Tensor,
        *caches: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        """Decode to logits (batch, tokens, vocabulary), best tokens (batch, tokens) and the caches after them.

        enc: float32 (batch, frames, size). enc_len, acoustic_embeds_len: int32 (batch,). acoustic_embeds: float32
        (batch, tokens, size). caches: float32 (batch, size, kernel - 1) for each block.
        """
        frames = sanm.mask(enc_len, torch.arange(enc.shape[1]))
        last = acoustic_embeds_len[:, None, None] + torch.arange(caches[0].shape[2])
        after = []
        hidden = acoustic_embeds
        for layer, cache in zip(self.decoder.decoders, caches, strict=True):
            inputs = layer.norm2(layer.feed_forward(layer.norm1(hidden)))
            memory = torch.cat((cache, inputs.transpose(1, 2)), dim=2)
            after.append(memory.gather(2, last.expand(-1, memory.shape[1], -1)))
            hidden = hidden + layer.self_attn.fsmn_block(memory).transpose(1, 2) + inputs
            hidden = hidden + sanm.cross_attention(layer.src_attn, layer.norm3(hidden), enc, frames.keys)[0]
        for layer in self.decoder.decoders3:
            hidden = layer.feed_forward(layer.norm1(hidden))
        logits = self.decoder.output_layer(self.decoder.after_norm(hidden))
        return (logits, logits.argmax(dim=-1), *after)


def _with_signature(function: Any, names: Sequence[str]) -> Any:
    def forward(*inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        outputs: tuple[torch.Tensor, ...] = function(*inputs)
        return outputs

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    forward.__signature__ = inspect.Signature([inspect.Parameter(n, kind) for n in names])  # type: ignore[attr-defined]
    return forward


def _states(model: ParaformerStreaming) -> dict[str, str]:
    return {f"in_cache_{i}": f"out_cache_{i}" for i in range(len(model.decoder.decoders))}


def graph_set(model: ParaformerStreaming) -> GraphSet:
    """Describe encoder and decoder, with FunASR's names. A chunk is 20 frames and has some three tokens.

    At least one token: nothing is decoded where there is none, and the convolution of an empty sequence fails.
    """
    layer = model.decoder.decoders[0]
    size, reach = layer.size, layer.self_attn.kernel_size - 1
    lengths = {"dtype": "int32", "shape": ["batch"]}
    enc_shape = ["batch", "enc_length", size]
    cache = Tensor(dtype="float32", shape=["batch", size, reach])
    states = _states(model)
    batch = Axis(min=1, opt=1, max=64)
    frames = Axis(min=1, opt=sum(CHUNK), max=100)
    encoder = Graph(
        file="model.onnx",
        inputs={
            "speech": Tensor(dtype="float32", shape=["batch", "feats_length", model.encoder.encoders0[0].in_size]),
            "speech_lengths": Tensor(**lengths, length_of="feats_length"),
        },
        outputs={
            "enc": Tensor(dtype="float32", shape=["batch", "feats_length", size]),
            "enc_len": Tensor(**lengths),
            "alphas": Tensor(dtype="float32", shape=["batch", "feats_length"]),
        },
        states={},
        axes={"batch": batch, "feats_length": frames},
    )
    decoder = Graph(
        file="decoder.onnx",
        inputs={
            "enc": Tensor(dtype="float32", shape=enc_shape),
            "enc_len": Tensor(**lengths, length_of="enc_length"),
            "acoustic_embeds": Tensor(dtype="float32", shape=["batch", "token_length", size]),
            "acoustic_embeds_len": Tensor(**lengths, length_of="token_length"),
            **dict.fromkeys(states, cache),
        },
        outputs={
            "logits": Tensor(dtype="float32", shape=["batch", "token_length", model.decoder.output_layer.out_features]),
            "sample_ids": Tensor(dtype="int64", shape=["batch", "token_length"]),
            **dict.fromkeys(states.values(), cache),
        },
        states=states,
        axes={"batch": batch, "enc_length": frames, "token_length": Axis(min=1, opt=CHUNK_TOKENS, max=100)},
    )
    usual = {name: axis.opt for graph in (encoder, decoder) for name, axis in graph.axes.items()}
    return GraphSet(
        graphs={"encoder": encoder, "decoder": decoder},
        cases={"chunk_600ms": Case(sizes=usual, seconds=CHUNK_SECONDS)},
    )


def export_modules(model: ParaformerStreaming) -> dict[str, torch.nn.Module]:
    """Return the module behind each graph of `graph_set`."""
    return {"encoder": ExportedEncoder(model), "decoder": ExportedDecoder(model)}


def metadata(folder: Path) -> dict[str, sherpa.Metadata]:
    """Return what sherpa-onnx reads in the encoder's file: also how large the decoder's caches are."""
    config, typed = read_typed(folder, "paraformer_streaming", SCHEMAS)
    sizes = {
        "encoder_output_size": typed.encoder_conf.output_size,
        "decoder_num_blocks": typed.decoder_conf.num_blocks,
        "decoder_kernel_size": typed.decoder_conf.kernel_size,
    }
    caches = {name: str(size) for name, size in sizes.items()}
    return {"encoder": sherpa.recognizer(folder, typed.frontend_conf, config["vocab_size"]) | caches}
