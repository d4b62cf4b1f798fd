"""Triton's Python backend: what each kind of model does with its requests.

`network` runs a graph in ONNX Runtime, with the states of each sequence; `pipeline` runs all that a family does;
`features` and `decoding` are the two ends of an ensemble with a `network` between them. A kind and its settings are
parameters in config.pbtxt, its files are in the folder of the version.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import triton_python_backend_utils as pb

from stages import models
from stages.core import graphs
from stages.core.errors import UserError, first_line
from stages.core.graphs import Feeds
from stages.corpora.manifest import SAMPLE_RATE
from stages.runtimes import onnxruntime
from stages.serving import batches, metrics, pipelines
from stages.serving.sequences import Sequences


class Kind(Protocol):
    """What a model does."""

    def answer(self, requests: Sequence[Any]) -> list[Any]:
        """Return a response for each of Triton's requests."""


class TritonPythonModel:
    """The class that Triton asks model.py for."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the model; args: Triton's, with the configuration as JSON."""
        config = json.loads(args["model_config"])
        settings = {name: value["string_value"] for name, value in config["parameters"].items()}
        folder = Path(args["model_repository"]) / args["model_version"]
        labels = {"model": settings["model"], "version": args["model_version"], "target": settings["target"]}
        self.kind: Kind = KINDS[settings["kind"]](folder, settings, labels)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer requests that Triton gathered."""
        return self.kind.answer(requests)


class Network:
    """One graph in ONNX Runtime; a batch of what came together, or step by step with the states of sequences."""

    def __init__(self, folder: Path, settings: dict[str, str], _labels: dict[str, str]) -> None:
        """Load the graph."""
        self.graph = graphs.read(folder).graphs[settings["graph"]]
        self.run = onnxruntime.network(folder / self.graph.file, self.graph)
        self.sequences: Sequences[Feeds] = Sequences(dict)

    def answer(self, requests: Sequence[Any]) -> list[Any]:
        """Run what Triton gathered at once where rows can be stacked, else one after the other."""
        if self.graph.states or not batches.is_batched(self.graph):
            return [respond(self._step, request) for request in requests]
        try:
            feeds = [read(request) for request in requests]
            outputs = self.run(batches.join(self.graph, feeds))
            parts = batches.split(outputs, [len(next(iter(each.values()))) for each in feeds])
        except Exception:  # noqa: BLE001  one that does not fit is not to spoil the others
            return [respond(self._step, request) for request in requests]
        return [success(part) for part in parts]

    def _step(self, request: Any) -> Feeds:
        feeds = read(request)
        if not self.graph.states:
            return self.run(feeds)
        with self.sequences.state(request.correlation_id(), *position(request)) as states:
            outputs = self.run(feeds | (states or self._first(feeds)))
            states.update({name: outputs.pop(fed) for name, fed in self.graph.states.items()})
        return outputs

    def _first(self, feeds: Feeds) -> Feeds:
        rows = len(next(iter(feeds.values())))
        shapes = {name: self.graph.inputs[name].shape for name in self.graph.states}
        return {
            name: np.zeros([rows if isinstance(size, str) else size for size in shape], self.graph.inputs[name].dtype)
            for name, shape in shapes.items()
        }


@dataclass
class Stream:
    """What is kept between the pieces of a stream: the family's cache, and whether nothing was found yet."""

    cache: dict[str, Any] = field(default_factory=dict)
    is_empty: bool = True


class Pipeline:
    """A family's whole pipeline, one request after the other, with the cache of each sequence where it streams."""

    def __init__(self, folder: Path, settings: dict[str, str], labels: dict[str, str]) -> None:
        """Load the pipeline and its graphs."""
        graph_set = graphs.read(folder)
        artifact = graph_set, onnxruntime.load(folder, graph_set)
        self.described = pipelines.PIPELINES[settings["pipeline"]]
        self.run = self.described.load(settings["family"], folder, artifact)
        self.metrics = metrics.register(labels)
        self.streams: Sequences[Stream] = Sequences(Stream)

    def answer(self, requests: Sequence[Any]) -> list[Any]:
        """Answer each request, and record it."""
        return [respond(self._answer_one, request, self.metrics) for request in requests]

    def _answer_one(self, request: Any) -> Feeds:
        began, inputs = time.monotonic(), read(request)
        seconds = check_audio(inputs) if "WAV" in inputs else 0.0
        if self.described.streams:
            starts, ends = position(request)
            with self.streams.state(request.correlation_id(), starts, ends) as stream:
                outputs = self.run(inputs, stream.cache, ends)
                stream.is_empty &= is_empty(outputs)
            empty = stream.is_empty
        else:
            outputs, ends = self.run(inputs, {}, True), True
            empty = is_empty(outputs)
        self.metrics.answered(time.monotonic() - began, seconds, empty=empty, is_last=ends)
        return {name: array[None] for name, array in outputs.items()}


class Features:
    """The first step of an ensemble: audio to the network's inputs, and the clock of the request."""

    def __init__(self, folder: Path, settings: dict[str, str], labels: dict[str, str]) -> None:
        """Load the front end."""
        self.prepare = models.SPLITTABLE.load(settings["family"]).load_features(folder)
        self.metrics = metrics.register(labels)

    def answer(self, requests: Sequence[Any]) -> list[Any]:
        """Compute the features of each request's rows."""
        return [respond(self._answer_one, request, self.metrics) for request in requests]

    def _answer_one(self, request: Any) -> Feeds:
        began, inputs = time.monotonic(), read(request)
        rows = [{name: array[row] for name, array in inputs.items()} for row in range(len(inputs["WAV"]))]
        seconds = [check_audio(row) for row in rows]
        prepared = [self.prepare(pipelines.audio(row)) for row in rows]
        stacked = {name: batches.stack([each[name][None] for each in prepared]) for name in prepared[0]}
        return stacked | {pipelines.CLOCK: np.array([[began, each] for each in seconds], np.float64)}


class Decoding:
    """The last step of an ensemble: the network's outputs to texts."""

    def __init__(self, folder: Path, settings: dict[str, str], labels: dict[str, str]) -> None:
        """Load what follows the network."""
        self.decode = models.SPLITTABLE.load(settings["family"]).load_decoder(folder)
        self.metrics = metrics.register(labels)

    def answer(self, requests: Sequence[Any]) -> list[Any]:
        """Decode each request's rows, and record each row."""
        return [respond(self._answer_one, request, self.metrics) for request in requests]

    def _answer_one(self, request: Any) -> Feeds:
        feeds = read(request)
        clock = feeds.pop(pipelines.CLOCK)
        texts = self.decode(feeds, feeds)
        for text, (began, seconds) in zip(texts, clock, strict=True):
            self.metrics.answered(time.monotonic() - began, seconds, empty=not text)
        return {"TRANSCRIPTS": pipelines.strings(*texts)[:, None]}


KINDS: dict[str, Callable[[Path, dict[str, str], dict[str, str]], Kind]] = {
    "network": Network,
    "pipeline": Pipeline,
    "features": Features,
    "decoding": Decoding,
}


def read(request: Any) -> Feeds:
    """Return the inputs of a request by name."""
    return {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}


def position(request: Any) -> tuple[bool, bool]:
    """Tell whether a request is the first of its sequence, and whether it is the last."""
    flags = request.flags()
    start, end = pb.TRITONSERVER_REQUEST_FLAG_SEQUENCE_START, pb.TRITONSERVER_REQUEST_FLAG_SEQUENCE_END
    return bool(flags & start), bool(flags & end)


def check_audio(inputs: Feeds) -> float:
    """Return the seconds of one row of audio.

    Raises:
        UserError: its length is not one of the tensor's, or a sample is not a finite number.
    """
    has, wanted = inputs["WAV"].size, int(np.ravel(inputs["WAV_LENS"])[0])
    if not 0 <= wanted <= has:
        raise UserError(f"WAV_LENS: found {wanted}, wanted 0 to {has}, the samples of WAV")
    if not np.isfinite(inputs["WAV"]).all():
        raise UserError("WAV: found NaN or infinity, wanted samples in [-1, 1)")
    return wanted / SAMPLE_RATE


def is_empty(outputs: Feeds) -> bool:
    """Tell whether an answer says nothing: no segment, or no text."""
    first = next(iter(outputs.values()))
    return first.size == 0 or (first.dtype == np.object_ and not any(first.ravel()))


def respond(work: Callable[[Any], Feeds], request: Any, counted: metrics.Metrics | None = None) -> Any:
    """Return a response with what `work` makes of a request, or with its error."""
    try:
        return success(work(request))
    except Exception as e:  # noqa: BLE001  whatever a library raises is this request's failure, not the server's
        if counted:
            counted.failed(metrics.INPUT if isinstance(e, UserError) else metrics.INTERNAL)
        return failure(e)


def success(outputs: Feeds) -> Any:
    """Return a response with outputs."""
    return pb.InferenceResponse([pb.Tensor(name, np.ascontiguousarray(array)) for name, array in outputs.items()])


def failure(error: Exception) -> Any:
    """Return a response with the first line of an error."""
    words = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {first_line(error)}"
    return pb.InferenceResponse(error=pb.TritonError(words))
