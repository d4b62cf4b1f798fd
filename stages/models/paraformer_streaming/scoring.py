"""FunASR's streaming recognizer with only its networks swapped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from stages.core.graphs import Feeds, Graph
from stages.core.parity import LoadedArtifact, Network
from stages.corpora.manifest import Recording
from stages.models.accuracy import PARAFORMER_STREAMING
from stages.models.paraformer_streaming.network import CHUNK, CHUNK_SAMPLES, build, load_frontend, read_config
from stages.models.shared import asr, checkpoint
from stages.models.shared.asr import Outcome

if TYPE_CHECKING:
    from funasr.models.paraformer_streaming.model import ParaformerStreaming

MODES = PARAFORMER_STREAMING.modes


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
        states = cache["decode_fsmn"] or self._empty_states()
        outputs = self.network(feeds | states)
        cache["decode_fsmn"] = {name: outputs[fed] for name, fed in self.graph.states.items()}
        self.tokens += outputs["logits"][0].argmax(axis=-1).tolist()
        return torch.from_numpy(outputs["logits"])

    def _empty_states(self) -> Feeds:
        shapes = {name: self.graph.inputs[name].shape for name in self.graph.states}
        return {name: np.zeros([1, *map(int, shape[1:])], np.float32) for name, shape in shapes.items()}


def score(folder: Path, artifact: LoadedArtifact, mode: str, recordings: Iterable[Recording]) -> list[Outcome]:
    """Run FunASR's streaming recognizer over the recordings with the artifact's networks in place of its own.

    FunASR's `inference` cuts a recording into chunks of 600 ms itself, the last one final, and carries its caches
    from one to the next, as if they came one by one. Front end, positions, overlap, integrate-and-fire, tokens and
    text are FunASR's; the front end's dither is off, so that two artifacts get the same.

    mode: `streaming`.
    """
    if mode not in MODES:
        raise ValueError(f"found mode {mode!r}, wanted one of {MODES}")
    transcribe, decoder = _recognizer(folder, artifact)
    outcomes = []
    for recording in recordings:
        decoder.tokens = []
        text = transcribe(recording.samples(), {}, is_final=True)
        outcomes.append(Outcome(decoder.tokens, text))
    return outcomes


def load_streaming_recognizer(folder: Path, artifact: LoadedArtifact) -> Callable[[NDArray[np.float32]], Iterator[str]]:
    """Load FunASR's recognizer for audio float32 (samples,) that arrives 600 ms at a time; it gives each piece's text.

    The last piece is what is left, so a recording gives one more text than it has whole pieces. Together they are the
    tokens that `score` has of the whole recording.
    """
    transcribe = load_stream(folder, artifact)

    def recognize_pieces(samples: NDArray[np.float32]) -> Iterator[str]:
        cache: dict[str, Any] = {}
        for start in range(0, len(samples) + 1, CHUNK_SAMPLES):
            piece = samples[start : start + CHUNK_SAMPLES]
            yield transcribe(piece, cache, len(piece) < CHUNK_SAMPLES)

    return recognize_pieces


def load_stream(folder: Path, artifact: LoadedArtifact) -> Callable[[NDArray[np.float32], dict[str, Any], bool], str]:
    """Load FunASR's recognizer as a function of the next piece of a stream, which gives the text of that piece.

    The function takes audio float32 (samples,), the stream's cache, a dictionary that it fills, empty at first, and
    whether the piece is the last.
    """
    transcribe, decoder = _recognizer(folder, artifact)

    def push(samples: NDArray[np.float32], cache: dict[str, Any], is_final: bool) -> str:  # noqa: FBT001
        decoder.tokens = []  # which `score` alone reads
        return transcribe(samples, cache, is_final=is_final)

    return push


def _recognizer(folder: Path, artifact: LoadedArtifact) -> tuple[Callable[..., str], _Decoder]:
    torch.set_num_threads(1)  # the tensors are small, and other processes have the other cores
    config = read_config(folder)
    model = checkpoint.described(build, config, folder)
    tokenizer, frontend = asr.load_tokenizer(folder, config), load_frontend(folder, config)
    return partial(recognize, model, config, tokenizer=tokenizer, frontend=frontend), swap(model, artifact)


def swap(model: ParaformerStreaming, artifact: LoadedArtifact) -> _Decoder:
    """Put the artifact's networks into FunASR's module, which keeps everything around them."""
    graphs, networks = artifact
    layers = _EncoderLayers(networks["encoder"])
    model.encoder.encoders0, model.encoder.encoders = torch.nn.ModuleList([layers]), torch.nn.ModuleList()
    model.encoder.after_norm = model.predictor.pad = model.predictor.cif_conv1d = torch.nn.Identity()
    model.predictor.cif_output = _WeightsAsLogits(layers, model.predictor)
    model.decoder = decoder = _Decoder(networks["decoder"], graphs.graphs["decoder"])
    return decoder


def recognize(
    model: ParaformerStreaming,
    config: dict[str, Any],
    samples: NDArray[np.float32],
    cache: dict[str, Any],
    *,
    is_final: bool,
    **tools: Any,
) -> str:
    """Return FunASR's text of audio float32 (samples,), which `cache` of the audio before it makes a stream."""
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
