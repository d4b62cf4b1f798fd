"""Paraformer for streams: an encoder graph run once for each 600 ms, a decoder graph with caches for what it fires.

Gao et al., "Paraformer: Fast and Accurate Parallel Transformer for Non-autoregressive End-to-End Speech
Recognition", 2022; Zhang et al., "Streaming Chunk-Aware Multihead Attention for Online End-to-End Speech
Recognition", 2020.

FunASR streams in two ways. Its ONNX runtime (`funasr_onnx`, ParaformerOnline) gives the encoder each chunk with
300 ms of features before and after it and nothing else; its torch `generate` can also keep attention keys and
values of earlier chunks (`encoder_chunk_look_back`, `decoder_chunk_look_back`), for which the runtime's graphs have
no inputs. Graphs here are the runtime's. With the look-backs at zero, FunASR's default, and the runtime's chunk of
(5, 10, 5) frames, torch computes the same as the graphs, and that is what `score` runs and what the baseline is. With
look-back, which FunASR's documentation suggests for torch, the text may differ from every artifact's, fp32 included.
At the end of a recording `funasr_onnx` runs a remainder of over 300 ms as two chunks where torch runs one longer
one, so their last tokens may differ, with the same graphs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from stages.core.graphs import Axis, Case, Feeds, Graph, GraphSet, Tensor
from stages.core.params.prune import PruneParams
from stages.core.parity import Artifact, Network
from stages.corpora.manifest import SAMPLE_RATE, Recording
from stages.models import asr, checkpoint, cif, cmvn, paraformer, sanm, tokens
from stages.models.asr import HEADLINE, METRICS, Outcome, measure, read_outcomes, write_outcomes
from stages.models.paraformer import Positions, say, widths
from stages.models.sanm import with_widths
from stages.models.schemas.paraformer import RecognizerFrontend
from stages.models.schemas.paraformer_streaming import Streaming
from stages.pruning import narrowing, recovery

if TYPE_CHECKING:
    from funasr.frontends.wav_frontend import WavFrontendOnline
    from funasr.models.paraformer_streaming.model import ParaformerStreaming

__all__ = ["HEADLINE", "METRICS", "measure", "read_outcomes", "widths", "with_widths", "write_outcomes"]

MODES = ("streaming",)
FAMILY = "paraformer_streaming"
CHUNK = (5, 10, 5)  # frames of 60 ms: left context, chunk, right context; the default of FunASR's ONNX runtime
CHUNK_SECONDS = 0.6
CHUNK_SAMPLES = round(CHUNK_SECONDS * SAMPLE_RATE)
CHUNK_TOKENS = 3  # in that time, of Mandarin
SECTIONS = ("encoder", "decoder", "predictor")
SCHEMAS = {"ParaformerStreaming": Streaming}


def read_config(folder: Path) -> dict[str, Any]:
    """config.yaml of a checkpoint, with `vocab_size` from its tokens.json, as FunASR adds it.

    Raises:
        UserError: it is not what the schema wants, or am.mvn or tokens.json does not fit it.
    """
    config, typed = checkpoint.read_config(folder, FAMILY, SCHEMAS)
    cmvn.check(folder, typed.frontend_conf.size)
    return config | {"vocab_size": len(tokens.read(folder, typed.vocab_size))}


def build(config: dict[str, Any]) -> ParaformerStreaming:
    """FunASR's module for a configuration, with random weights, in evaluation mode."""
    with checkpoint.importing_funasr():
        # These register the classes that the configuration names.
        import funasr.models.paraformer.cif_predictor
        import funasr.models.paraformer.decoder
        import funasr.models.scama.encoder  # noqa: F401
        from funasr.models.paraformer_streaming.model import ParaformerStreaming

    front = RecognizerFrontend.model_validate(config["frontend_conf"])
    parts = {section: config[section] for section in SECTIONS}
    parts |= {f"{section}_conf": sanm.funasr_conf(config[f"{section}_conf"]) for section in SECTIONS}
    sizes = {"input_size": front.size, "vocab_size": config["vocab_size"]}
    model = ParaformerStreaming(**config["model_conf"], **parts, **sizes).eval()
    sanm.keep_heads(model, config)
    return model


def load(folder: Path) -> ParaformerStreaming:
    """The checkpoint as FunASR's own module, in evaluation mode.

    Raises:
        UserError: config.yaml or model.pt is not what the family needs.
    """
    return checkpoint.load(build, read_config(folder), folder)


# Export


class ExportedEncoder(torch.nn.Module):
    """Encoder and the convolution of the predictor, for features that are scaled and have their positions added."""

    def __init__(self, model: ParaformerStreaming) -> None:
        """Share the parts of `model`."""
        super().__init__()
        self.encoder, self.predictor = model.encoder, model.predictor

    def forward(self, speech: torch.Tensor, speech_lengths: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Encoded (batch, frames, size), their lengths (batch,), and the weight of each frame (batch, frames).

        speech: float32 (batch, frames, input_size). speech_lengths: int32 (batch,).
        """
        inside = sanm.mask(speech_lengths, torch.arange(speech.shape[1]))
        encoded = sanm.encode_blocks(self.encoder, speech, inside)
        return encoded, speech_lengths.clone(), frame_weights(self.predictor, encoded, inside)


def frame_weights(predictor: Any, encoded: torch.Tensor, inside: sanm.Mask) -> torch.Tensor:
    """How much of a token each frame is (batch, frames), by its neighbours in the recording alone: 0 in the padding."""
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
        """Logits (batch, tokens, vocabulary), the best token of each (batch, tokens) and the caches after them.

        enc: float32 (batch, frames, size). enc_len, acoustic_embeds_len: int32 (batch,). acoustic_embeds: float32
        (batch, tokens, size). caches: float32 (batch, size, kernel - 1) for each block.
        """
        heard = sanm.mask(enc_len, torch.arange(enc.shape[1]))
        last = acoustic_embeds_len[:, None, None] + torch.arange(caches[0].shape[2])
        after = []
        hidden = acoustic_embeds
        for layer, cache in zip(self.decoder.decoders, caches, strict=True):
            inputs = layer.norm2(layer.feed_forward(layer.norm1(hidden)))
            memory = torch.cat((cache, inputs.transpose(1, 2)), dim=2)
            after.append(memory.gather(2, last.expand(-1, memory.shape[1], -1)))
            hidden = hidden + layer.self_attn.fsmn_block(memory).transpose(1, 2) + inputs
            hidden = hidden + sanm.cross_attention(layer.src_attn, layer.norm3(hidden), enc, heard.keys)[0]
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
    """Encoder and decoder, with FunASR's names. A chunk of a stream is 20 frames and fires some three tokens.

    At least one token: nothing is decoded where none is fired, and the convolution of an empty sequence fails.
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
    """The module behind each graph of `graph_set`."""
    return {"encoder": ExportedEncoder(model), "decoder": ExportedDecoder(model)}


# Scoring


class _EncoderLayers(torch.nn.Module):
    """Takes the place of the layers of FunASR's encoder: runs the network and keeps the weights of the frames."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        self.weights = torch.empty(0)

    def forward_chunk(self, inputs: torch.Tensor, *_: object) -> tuple[torch.Tensor, None]:
        lengths = np.full(len(inputs), inputs.shape[1], np.int32)
        outputs = self.network({"speech": inputs.numpy(), "speech_lengths": lengths})
        self.weights = torch.from_numpy(outputs["alphas"])
        return torch.from_numpy(outputs["enc"]), None


class _WeightsAsLogits(torch.nn.Module):
    """Takes the place of the last layer before the predictor's sigmoid, of which the network gives the outcome.

    FunASR's integrate-and-fire follows that sigmoid in one method, so it gets what leads to the same weights, in
    double precision: to within 1e-15.
    """

    def __init__(self, layers: _EncoderLayers, predictor: Any) -> None:
        super().__init__()
        self.layers, self.scale, self.shift = layers, predictor.smooth_factor, predictor.noise_threshold

    def forward(self, _: torch.Tensor) -> torch.Tensor:
        return torch.logit((self.layers.weights.double() + self.shift) / self.scale)[:, :, None]


class _Decoder(torch.nn.Module):
    """Takes the place of FunASR's decoder: runs the network and keeps the best tokens."""

    def __init__(self, network: Network, graph: Graph) -> None:
        super().__init__()
        self.network, self.graph = network, graph
        self.tokens: list[int] = []

    def forward_chunk(self, memory: torch.Tensor, embeds: torch.Tensor, cache: dict[str, Any]) -> torch.Tensor:
        feeds: Feeds = {
            "enc": memory.numpy(),
            "enc_len": np.full(len(memory), memory.shape[1], np.int32),
            "acoustic_embeds": embeds.numpy(),
            "acoustic_embeds_len": np.full(len(embeds), embeds.shape[1], np.int32),
        }
        states = cache["decode_fsmn"] or self._silence()
        outputs = self.network(feeds | states)
        cache["decode_fsmn"] = {name: outputs[fed] for name, fed in self.graph.states.items()}
        self.tokens += outputs["logits"][0].argmax(axis=-1).tolist()
        return torch.from_numpy(outputs["logits"])

    def _silence(self) -> Feeds:
        shapes = {name: self.graph.inputs[name].shape for name in self.graph.states}
        return {name: np.zeros([1, *map(int, shape[1:])], np.float32) for name, shape in shapes.items()}


def score(folder: Path, artifact: Artifact, mode: str, recordings: Sequence[Recording]) -> list[Outcome]:
    """Run FunASR's streaming recognizer over the recordings with the artifact's networks in place of its own.

    FunASR's `inference` cuts a recording into chunks of 600 ms itself, the last one final, and carries its caches
    from one to the next, as if they came one by one. Front end, positions, overlap, integrate-and-fire, tokens and
    text are FunASR's; the front end's dither is off, so that two artifacts hear the same.

    mode: `streaming`.
    """
    if mode not in MODES:
        raise ValueError(f"found mode {mode!r}, wanted one of {MODES}")
    speak, decoder = _recognizer(folder, artifact)
    outcomes = []
    for recording in recordings:
        decoder.tokens = []
        text = speak(recording.samples(), {}, is_final=True)
        outcomes.append(Outcome(decoder.tokens, text))
    return outcomes


def streaming_recognizer(folder: Path, artifact: Artifact) -> Callable[[NDArray[np.float32]], Iterator[str]]:
    """FunASR's recognizer, loaded, for audio float32 (samples,) that arrives 600 ms at a time: the text of each piece.

    The last piece is what is left, so a recording gives one more text than it has whole pieces. Together they are the
    tokens that `score` has of the whole recording.
    """
    speak, _ = _recognizer(folder, artifact)

    def listen(samples: NDArray[np.float32]) -> Iterator[str]:
        cache: dict[str, Any] = {}
        for start in range(0, len(samples) + 1, CHUNK_SAMPLES):
            piece = samples[start : start + CHUNK_SAMPLES]
            yield speak(piece, cache, is_final=len(piece) < CHUNK_SAMPLES)

    return listen


def _recognizer(folder: Path, artifact: Artifact) -> tuple[Callable[..., str], _Decoder]:
    torch.set_num_threads(1)  # the pipeline's tensors are small, and other processes have the other cores
    config, model = read_config(folder), load(folder)
    tokenizer, frontend = asr.load_tokenizer(folder, config), load_frontend(folder, config)
    return partial(_recognize, model, config, tokenizer=tokenizer, frontend=frontend), _swap(model, artifact)


def _swap(model: ParaformerStreaming, artifact: Artifact) -> _Decoder:
    """Put the artifact's networks into FunASR's module, which keeps everything around them."""
    graphs, networks = artifact
    layers = _EncoderLayers(networks["encoder"])
    model.encoder.encoders0, model.encoder.encoders = torch.nn.ModuleList([layers]), torch.nn.ModuleList()
    model.encoder.after_norm = model.predictor.pad = model.predictor.cif_conv1d = torch.nn.Identity()
    model.predictor.cif_output = _WeightsAsLogits(layers, model.predictor)
    model.decoder = decoder = _Decoder(networks["decoder"], graphs.graphs["decoder"])
    return decoder


def _recognize(
    model: ParaformerStreaming,
    config: dict[str, Any],
    samples: NDArray[np.float32],
    cache: dict[str, Any],
    *,
    is_final: bool,
    **tools: Any,
) -> str:
    with torch.inference_mode():
        results, _ = model.inference(
            [torch.from_numpy(samples)],
            key=[""],
            cache=cache,
            is_final=is_final,
            chunk_size=list(CHUNK),
            device="cpu",
            encoder_conf=config["encoder_conf"],
            frontend_conf=config["frontend_conf"],
            **tools,
        )
    text: str = results[0]["text"]
    return text


def load_frontend(folder: Path, config: dict[str, Any]) -> WavFrontendOnline:
    """FunASR's streaming front end with the checkpoint's CMVN, without dither."""
    with checkpoint.importing_funasr():
        from funasr.frontends.wav_frontend import WavFrontendOnline

    return WavFrontendOnline(cmvn_file=str(folder / "am.mvn"), **config["frontend_conf"] | {"dither": 0.0})


# Pruning

REFIT_FRAMES = 6000  # of chunks with their overlaps; all dense outputs of them are held


@dataclass(frozen=True)
class Chunks:
    """What the encoder is given of recordings, chunk by chunk, padded.

    speech: scaled features with positions and overlap (recordings, chunks, 20, input_size). lengths: (recordings,
    chunks), 0 after the last chunk of a recording.
    """

    speech: torch.Tensor
    lengths: torch.Tensor


def calibration(folder: Path, recordings: Sequence[Recording], settings: PruneParams) -> list[Chunks]:
    """What FunASR's pipeline gives the encoder of each recording, then of `settings.variations` variations of each."""
    audio = [recording.samples() for recording in recordings]
    audio += recovery.vary(audio, settings.variations, settings.seed)
    return chunks(folder, audio)


def chunks(folder: Path, audio: Sequence[NDArray[np.float32]]) -> list[Chunks]:
    """Each recording of `audio`, float32 (samples,) in [-1, 1), as the encoder is given it."""
    config, model = read_config(folder), load(folder)
    tools = {"tokenizer": asr.load_tokenizer(folder, config), "frontend": load_frontend(folder, config)}
    size, given = model.encoder.output_size(), []

    def hear_nothing(feeds: Feeds) -> Feeds:
        given.append(torch.from_numpy(feeds["speech"][0]))
        shape = feeds["speech"].shape[:2]
        return {"enc": np.zeros((*shape, size), np.float32), "alphas": np.zeros(shape, np.float32)}

    _swap(model, (graph_set(model), {"encoder": hear_nothing, "decoder": hear_nothing}))
    found = []
    for samples in audio:
        given.clear()
        _recognize(model, config, samples, {}, is_final=True, **tools)
        padded = [torch.nn.functional.pad(chunk, (0, 0, 0, sum(CHUNK) - len(chunk))) for chunk in given]
        found.append(Chunks(torch.stack(padded)[None], torch.tensor([[len(chunk) for chunk in given]])))
    return found


def hear(model: ParaformerStreaming, given: Chunks) -> tuple[torch.Tensor, torch.Tensor]:
    """The encoder over all chunks at once: frames (recordings, chunks * 20, size), and their weights and the tail's.

    A frame that stands in several chunks has its weight in one, as FunASR has it: not in the context before a chunk,
    and in that after it only where no chunk follows.
    """
    positions = torch.arange(given.speech.shape[2])
    inside = sanm.mask(given.lengths.flatten(), positions)
    encoded = sanm.encode_blocks(model.encoder, given.speech.flatten(0, 1), inside)
    weights = frame_weights(model.predictor, encoded, inside).view(given.speech.shape[:3])
    last = (given.lengths > 0).sum(dim=1, keepdim=True) - 1 == torch.arange(given.lengths.shape[1])
    counted = (positions >= CHUNK[0]) & ((positions < sum(CHUNK[:2])) | last[:, :, None])
    weights = torch.nn.functional.pad((weights * counted).flatten(1), (0, 1), value=model.predictor.tail_threshold)
    return encoded.view(*given.speech.shape[:3], -1).flatten(1, 2), weights


def fire(given: Chunks, weights: torch.Tensor) -> Positions:
    """The tokens of `weights` as `hear` gives them. A token attends to the frames of the chunk it fires in."""
    shares, token_num = cif.integrate(weights)
    tokens = sanm.mask(token_num.clamp(min=1), torch.arange(shares.shape[1]))
    size = given.speech.shape[2]
    frames = torch.arange(shares.shape[2])
    chunk = ((shares > 0) * frames).amax(dim=2, keepdim=True) // size
    inside = (frames % size)[None] < given.lengths.repeat_interleave(size, dim=1)
    keys = sanm.BLOCKED * ~((frames // size == chunk) & inside[:, None])
    return Positions(tokens, shares, keys[:, None])


def narrowed(config: dict[str, Any], removed: float, steps: Mapping[str, int]) -> dict[str, Any]:
    """Return the configuration whose widths, multiples of `steps`, remove closest to `removed` of all parameters."""
    model = checkpoint.weightless(build, config)
    return with_widths(config, narrowing.narrowed(model, paraformer.WIDTHS, removed, steps))


def counter(config: dict[str, Any]) -> Callable[[Mapping[str, int]], int]:
    """How many parameters the model has with other widths, by the keys of `widths`."""
    return narrowing.counter(checkpoint.weightless(build, config), paraformer.WIDTHS)


def cut(
    model: ParaformerStreaming, config: dict[str, Any], given: Sequence[Chunks], criterion: str, damping: float
) -> tuple[ParaformerStreaming, recovery.Refit]:
    """A copy of the model with the widths of `config`, and what refits it.

    given: as `calibration` gives them; the first REFIT_FRAMES are used. criterion: one of `stages.pruning.criteria`.
    """
    ends = np.cumsum([int(one.lengths.sum()) for one in given])
    batch = _batch(given[: max(1, int(np.searchsorted(ends, REFIT_FRAMES, side="right")))])
    small = checkpoint.weightless(build, config)
    with torch.no_grad():
        at = fire(batch, hear(model, batch)[1])
    frames = sanm.mask(batch.lengths.flatten(), torch.arange(batch.speech.shape[2]))

    def inside(name: str, _: torch.Tensor) -> torch.Tensor:
        return (frames if name.startswith("encoder.") else at.tokens).rows[:, :, 0] > 0

    return small, narrowing.cut(model, small, lambda m: say(m, hear(m, batch)[0], at), inside, criterion, damping)


def _batch(given: Sequence[Chunks]) -> Chunks:
    def pad(parts: list[torch.Tensor]) -> torch.Tensor:
        return torch.nn.utils.rnn.pad_sequence(parts, batch_first=True)

    return Chunks(pad([one.speech[0] for one in given]), pad([one.lengths[0] for one in given]))


def distillation(small: ParaformerStreaming, model: ParaformerStreaming, given: Sequence[Chunks]) -> recovery.Loss:
    """The loss of one step: what the small model says of a few recordings, against the dense one."""
    return paraformer.distillation_at_tokens(small, model, given, _batch, hear, fire)


def multiplications(model: ParaformerStreaming) -> int:
    """Multiply-accumulates of the weights for one chunk: one for each frame, or for each token in the decoder."""
    parts = tuple(f"{section}." for section in SECTIONS)
    used = {n: p.numel() for n, p in model.named_parameters() if p.dim() > 1 and n.startswith(parts)}
    per_token = {n for n in used if n.startswith("decoder.") and "linear_k_v" not in n}
    unread = {n for n in used if n.startswith("decoder.embed")}
    return sum(size * (CHUNK_TOKENS if n in per_token else sum(CHUNK)) for n, size in used.items() if n not in unread)
