"""FunASR's voice activity detector with only its network swapped, on whole recordings and on audio as it arrives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from stages.core.graphs import Feeds, Graph
from stages.core.parity import LoadedArtifact, Network
from stages.corpora.manifest import SAMPLE_RATE, Recording
from stages.models.fsmn_vad.metrics import Outcome
from stages.models.fsmn_vad.network import CHUNK_MS, build, load_frontend, read_config
from stages.models.shared import checkpoint
from stages.models.shared.frontend import fills_window

if TYPE_CHECKING:
    from funasr.models.fsmn_vad_streaming.model import FsmnVADStreaming

OFFLINE_CHUNK_MS = 60_000  # FunASR's default: longer files are cut, with the caches carried over

Floats = NDArray[np.float32]
Events = list[list[int]]
Detect = Callable[[Floats], Iterator[tuple[int, Events]]]
"""Gives of audio float32 (samples,), piece by piece: the milliseconds that have arrived, and FunASR's events then.

An event is [start, end] in milliseconds, [start, -1] when speech was noticed, or [-1, end] when its end was.
"""


class _Encoder(torch.nn.Module):
    """Takes the place of FunASR's encoder: runs the network and keeps the posteriors."""

    def __init__(self, network: Network, graph: Graph) -> None:
        super().__init__()
        self.network, self.graph = network, graph
        self.speech: list[Floats] = []

    def forward(self, feats: torch.Tensor, cache: dict[str, Any]) -> torch.Tensor:
        feeds: Feeds = {"speech": feats.numpy()}
        for name, output in self.graph.states.items():
            shape = [d for d in self.graph.inputs[name].shape if isinstance(d, int)]
            feeds[name] = cache.get(output, np.zeros(shape, np.float32))
        outputs = self.network(feeds)
        cache.update({name: outputs[name] for name in self.graph.states.values()})
        posteriors = outputs["logits"]
        self.speech.append(1 - posteriors[0, :, 0].astype(np.float32))
        return torch.from_numpy(posteriors)


def score(folder: Path, artifact: LoadedArtifact, mode: str, recordings: Iterable[Recording]) -> list[Outcome]:
    """Run FunASR's detector over the recordings with the artifact's network in the place of its encoder.

    mode: `offline` feeds a whole file, `streaming` 200 ms at a time. The end-of-speech silence is
    the checkpoint's own `max_end_silence_time`: without an explicit value FunASR 1.4 varies it.
    """
    detect = load_detector(folder, artifact, mode)
    return [detect(recording.samples()) for recording in recordings]


def load_detector(folder: Path, artifact: LoadedArtifact, mode: str) -> Callable[[Floats], Outcome]:
    """Load FunASR's detector as a function of audio float32 (samples,), as `score` runs it."""
    model, detect_events = _load_events(folder, artifact, mode)

    def detect(samples: Floats) -> Outcome:
        segments = join_events(event for _, events in detect_events(samples) for event in events)
        return Outcome(np.concatenate([np.zeros(0, np.float32), *model.encoder.speech]), segments)

    return detect


def load_streaming_detector(folder: Path, artifact: LoadedArtifact) -> Detect:
    """Load FunASR's detector for audio that arrives 200 ms at a time."""
    return _load_events(folder, artifact, "streaming")[1]


def load_stream(folder: Path, artifact: LoadedArtifact) -> Callable[[Floats, dict[str, Any], bool], Events]:
    """Load FunASR's detector as a function of the next piece of a stream, which gives its events of that piece.

    The function takes audio float32 (samples,), the stream's cache, a dictionary that it fills, empty at first, and
    whether the piece is the last.
    """
    model, infer = _load_inference(folder, artifact, CHUNK_MS)

    def push(samples: Floats, cache: dict[str, Any], is_final: bool) -> Events:  # noqa: FBT001
        model.encoder.speech = []  # which `load_detector` alone reads
        return infer(samples, cache, is_final)

    return push


def _load_events(folder: Path, artifact: LoadedArtifact, mode: str) -> tuple[FsmnVADStreaming, Detect]:
    chunk_ms = OFFLINE_CHUNK_MS if mode == "offline" else CHUNK_MS
    model, infer = _load_inference(folder, artifact, chunk_ms)
    frontend = load_frontend(folder)

    def detect_events(samples: Floats) -> Iterator[tuple[int, Events]]:
        """Run FunASR's own inference loop, which has nothing to go over in audio that is shorter than a window."""
        model.encoder.speech = []
        if not fills_window(samples, frontend):
            return
        step = len(samples) if mode == "offline" else CHUNK_MS * SAMPLE_RATE // 1000
        cache: dict[str, Any] = {}
        for end in range(step, len(samples) + step, step):
            events = infer(samples[end - step : end], cache, end >= len(samples))
            yield 1000 * min(end, len(samples)) // SAMPLE_RATE, events

    return model, detect_events


def _load_inference(
    folder: Path, artifact: LoadedArtifact, chunk_ms: int
) -> tuple[FsmnVADStreaming, Callable[[Floats, dict[str, Any], bool], Events]]:
    """Load FunASR's module with the artifact's network in it, and its `inference` as a function of a piece."""
    torch.set_num_threads(1)  # the pipeline's tensors are small, and other processes have the other cores
    model, frontend = checkpoint.described(build, read_config(folder), folder), load_frontend(folder)
    graph_set, networks = artifact
    model.encoder = _Encoder(networks["model"], graph_set.graphs["model"])

    def infer(samples: Floats, cache: dict[str, Any], is_final: bool) -> Events:  # noqa: FBT001
        results, _ = model.inference(
            [torch.from_numpy(samples)],
            key=[""],
            frontend=frontend,
            cache=cache,
            is_final=is_final,
            chunk_size=chunk_ms,
            device="cpu",
            max_end_silence_time=model.vad_opts.max_end_silence_time,
        )
        found: Events = results[0]["value"]
        return found

    return model, infer


def join_events(events: Iterable[Sequence[int]]) -> list[list[int]]:
    """Make segments [start, end] of a detector's events: a [start, -1] and the [-1, end] after it are one."""
    segments: list[list[int]] = []
    for begin, end in events:
        if begin >= 0:
            segments.append([begin, end])
        elif segments:
            segments[-1][1] = end
    return [[begin, end] for begin, end in segments if end > begin]
