"""The pipelines that a server offers: which tensors each takes and gives, and the family's own code behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages import models
from stages.core.errors import UserError
from stages.core.graphs import Feeds
from stages.core.parity import LoadedArtifact
from stages.models import Kind

Tensors = Mapping[str, tuple[str, list[int]]]
"""Triton's data type and dimensions of each tensor, without the batch; -1 is any size."""
Answer = Callable[[Feeds, dict[str, Any], bool], Feeds]
"""Gives the outputs of one row of inputs; a stream's cache and whether it ends mean nothing to other pipelines."""
Load = Callable[[str, Path, LoadedArtifact], Answer]

CLOCK = "clock"  # of a request in an ensemble: when it began, on a clock of all processes, and its audio, in seconds
AUDIO: Tensors = {"WAV": ("TYPE_FP32", [-1]), "WAV_LENS": ("TYPE_INT32", [1])}
TEXT: Tensors = {"TRANSCRIPTS": ("TYPE_STRING", [1])}
SEGMENTS: Tensors = {"SEGMENTS": ("TYPE_INT32", [-1, 2])}


@dataclass(frozen=True)
class Pipeline:
    """One pipeline: the suffix of its model's name in Triton, the families that have it, its tensors and its code.

    optional: inputs that a client may leave out. streams: its requests are pieces of a sequence.
    """

    suffix: str
    families: Kind[Any]
    inputs: Tensors
    outputs: Tensors
    load: Load
    optional: tuple[str, ...] = ()
    streams: bool = False


def string(value: NDArray[Any]) -> str:
    """Return the text of an input of one string, which Triton hands over as bytes.

    Raises:
        UserError: they are not UTF-8.
    """
    try:
        return bytes(np.ravel(value)[0]).decode("utf-8")
    except UnicodeDecodeError as e:
        raise UserError(f"found bytes that are not UTF-8 at place {e.start}, wanted a text") from e


def strings(*values: str) -> NDArray[Any]:
    """Return texts as the array of bytes that Triton's strings are made of."""
    return np.array([value.encode("utf-8") for value in values], dtype=np.object_)


def audio(inputs: Feeds) -> NDArray[np.float32]:
    """Return the samples of one row, float32 (samples,), without its padding."""
    return np.ravel(inputs["WAV"])[: int(np.ravel(inputs["WAV_LENS"])[0])].astype(np.float32)


def _segments(found: Any) -> Feeds:
    return {"SEGMENTS": np.array(found, np.int32).reshape(-1, 2)}


def _detect(family: str, folder: Path, artifact: LoadedArtifact) -> Answer:
    detect = models.DETECTORS.load(family).load_detector(folder, artifact, "offline")
    return lambda inputs, *_: _segments(detect(audio(inputs)).segments)


def _detect_stream(family: str, folder: Path, artifact: LoadedArtifact) -> Answer:
    push = models.STREAMED.load(family).load_stream(folder, artifact)
    return lambda inputs, cache, is_final: _segments(push(audio(inputs), cache, is_final))


def _recognize_stream(family: str, folder: Path, artifact: LoadedArtifact) -> Answer:
    push = models.STREAMED.load(family).load_stream(folder, artifact)
    return lambda inputs, cache, is_final: {"TRANSCRIPTS": strings(push(audio(inputs), cache, is_final))}


def _recognize_hotwords(family: str, folder: Path, artifact: LoadedArtifact) -> Answer:
    recognize: Callable[..., Any] = models.RECOGNIZERS.load(family).load_recognizer(folder, artifact)

    def answer(inputs: Feeds, *_: Any) -> Feeds:
        words = string(inputs["HOTWORDS"]) if "HOTWORDS" in inputs else ""
        return {"TRANSCRIPTS": strings(recognize(audio(inputs), hotword=words).text)}

    return answer


def _punctuate(family: str, folder: Path, artifact: LoadedArtifact) -> Answer:
    punctuator = models.PUNCTUATORS.load(family)
    punctuate = punctuator.load_punctuator(folder, artifact)

    def answer(inputs: Feeds, *_: Any) -> Feeds:
        tokens, _marks = punctuator.read_marks(string(inputs["TEXT"]))
        return {"PUNCTUATED": strings(punctuate(tokens).text if tokens else "")}

    return answer


def _classify(family: str, folder: Path, artifact: LoadedArtifact) -> Answer:
    classifier = models.CLASSIFIERS.load(family)
    classify, labels = classifier.load_classifier(folder, artifact), classifier.labels(folder)
    return lambda inputs, *_: {"LABELS": strings(*labels), "SCORES": classify(audio(inputs)).scores}


def _embed(family: str, folder: Path, artifact: LoadedArtifact) -> Answer:
    embed = models.EMBEDDERS.load(family).load_embedder(folder, artifact)
    return lambda inputs, *_: {"EMBEDDING": embed(audio(inputs)).embedding}


HOTWORDS: Tensors = {"HOTWORDS": ("TYPE_STRING", [1])}
SCORES: Tensors = {"LABELS": ("TYPE_STRING", [-1]), "SCORES": ("TYPE_FP32", [-1])}
PIPELINES = {
    "detect": Pipeline("", models.DETECTORS, AUDIO, SEGMENTS, _detect),
    "detect_stream": Pipeline("_stream", models.DETECTORS, AUDIO, SEGMENTS, _detect_stream, streams=True),
    "recognize_stream": Pipeline("", models.STREAMING_RECOGNIZERS, AUDIO, TEXT, _recognize_stream, streams=True),
    "recognize_hotwords": Pipeline(
        "", models.HOTWORD_RECOGNIZERS, {**AUDIO, **HOTWORDS}, TEXT, _recognize_hotwords, optional=("HOTWORDS",)
    ),
    "punctuate": Pipeline(
        "", models.PUNCTUATORS, {"TEXT": ("TYPE_STRING", [1])}, {"PUNCTUATED": ("TYPE_STRING", [1])}, _punctuate
    ),
    "classify": Pipeline("", models.CLASSIFIERS, AUDIO, SCORES, _classify),
    "embed": Pipeline("", models.EMBEDDERS, AUDIO, {"EMBEDDING": ("TYPE_FP32", [-1])}, _embed),
}


def pipelines(family: str) -> Iterator[str]:
    """Yield the names of the pipelines that a family has and that are one model of Triton."""
    yield from (name for name, pipeline in PIPELINES.items() if family in pipeline.families)
