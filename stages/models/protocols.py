"""What a family is: the names that the stages ask a module of `stages.models` for. A module can satisfy a protocol.

A family's `torch.nn.Module` is FunASR's own, which has no types. `Outcome` is what a model makes of one recording, a
class of the family's own; `Data` is what it is pruned and distilled on.
"""
# ruff: noqa: N802  constants of a module, which is not to change them

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from stages.core.graphs import Feeds, GraphSet
    from stages.core.params.prune import PruneParams
    from stages.core.parity import LoadedArtifact
    from stages.core.statistics import Counts, Metric
    from stages.corpora.manifest import Recording
    from stages.models.shared.schema import Config
    from stages.models.shared.search import Search, Vocabulary
    from stages.pruning.recovery import Loss, Refit

    Floats = NDArray[np.float32]

Outcome = TypeVar("Outcome")
Data = TypeVar("Data")


class Family(Protocol[Outcome]):
    """What every stage needs of a family."""

    # What a checkpoint is

    @property
    def SCHEMAS(self) -> Mapping[str, type[Config]]:
        """Give the schema of config.yaml for each `model` that it may name; no two families have one in common."""

    def read_config(self, folder: Path) -> dict[str, Any]:
        """Read config.yaml of a checkpoint, and check it and the files beside it, without the weights.

        Raises:
            UserError: it is not what the family's schema wants, or a file beside it does not fit it.
        """

    def build(self, config: dict[str, Any]) -> torch.nn.Module:
        """Build FunASR's module for what `read_config` gives, with random weights, in evaluation mode."""

    def load(self, folder: Path) -> torch.nn.Module:
        """Load a checkpoint as FunASR's own module, in evaluation mode, weights only.

        Raises:
            UserError: config.yaml or model.pt is not what the family needs.
        """

    # What is exported

    def graph_set(self, model: torch.nn.Module) -> GraphSet:
        """Describe each graph: names, shapes, states and axes, and the sizes that latency is measured at."""

    def export_modules(self, model: torch.nn.Module) -> dict[str, torch.nn.Module]:
        """Return the module behind each graph of `graph_set`."""

    # What accuracy is

    @property
    def MODES(self) -> tuple[str, ...]:
        """Name the ways in which a model is run; the first gives the headline."""

    @property
    def METRICS(self) -> Mapping[str, Metric]:
        """Give what `measure` counts, and which way is better."""

    @property
    def HEADLINE(self) -> str:
        """Name the metric that stands for all where there is room for one."""

    def score(
        self, folder: Path, artifact: LoadedArtifact, mode: str, recordings: Iterable[Recording]
    ) -> list[Outcome]:
        """Run FunASR's own pipeline over the recordings with only the network swapped for the artifact's."""

    def measure(
        self, folder: Path, recordings: Sequence[Recording], references: Sequence[Outcome], outcomes: Sequence[Outcome]
    ) -> list[Counts]:
        """Count every metric of each recording as (numerator, denominator).

        folder: the checkpoint. references: the fp32 torch baseline's outcomes.
        """

    def write_outcomes(self, folder: Path, mode: str, outcomes: Sequence[Outcome]) -> None:
        """Keep outcomes of one mode for `read_outcomes`."""

    def read_outcomes(self, folder: Path, mode: str) -> list[Outcome]:
        """Read what `write_outcomes` kept, in the same order."""


class Prunable(Family[Outcome], Protocol[Outcome, Data]):
    """A family whose layers can be narrowed. A width is named by a key, and changes only in the configuration."""

    def widths(self, model: torch.nn.Module) -> dict[str, int]:
        """Return the widths that pruning changes, such as feed-forward channels or heads, by their keys."""

    def with_widths(self, config: dict[str, Any], new: Mapping[str, int]) -> dict[str, Any]:
        """Return the configuration with some widths changed."""

    def counter(self, config: dict[str, Any]) -> Callable[[Mapping[str, int]], int]:
        """Return a function that counts the model's parameters with some widths changed."""

    def narrowed(self, config: dict[str, Any], removed: float, steps: Mapping[str, int]) -> dict[str, Any]:
        """Choose the widths, multiples of `steps`, that remove closest to the share `removed` of all parameters."""

    def multiplications(self, model: torch.nn.Module) -> int:
        """Count the multiply-accumulates of the family's usual input, weights only."""

    def calibration(self, folder: Path, recordings: Sequence[Recording], settings: PruneParams) -> Data:
        """Compute what the network is fed of the recordings, then of `settings.variations` variations of each."""

    def cut(
        self, model: torch.nn.Module, config: dict[str, Any], calibration: Data, criterion: str, damping: float
    ) -> tuple[torch.nn.Module, Refit]:
        """Copy the model into a smaller one with the widths of `config`; return that, and a function that refits it.

        criterion: one of `stages.pruning.criteria`. damping: of the least squares of the refit.
        """

    def distillation(self, small: torch.nn.Module, model: torch.nn.Module, calibration: Data) -> Loss:
        """Return the loss of one step: how far the small model's outputs are from the model's on some of the data."""


class Described(Protocol):
    """A family whose graphs sherpa-onnx runs."""

    def metadata(self, folder: Path) -> Mapping[str, Mapping[str, str]]:
        """Return what that reads in each graph's file; folder: the checkpoint."""


@runtime_checkable
class HasSegments(Protocol):
    """What a detector makes of a recording."""

    @property
    def segments(self) -> list[list[int]]:
        """Give [start, end] of each stretch of speech, in milliseconds."""


@runtime_checkable
class HasText(Protocol):
    """What a recognizer makes of a recording, or a punctuator of a text."""

    @property
    def text(self) -> str:
        """Give FunASR's text."""


class Detector(Protocol):
    """A family that finds speech in a pipeline."""

    def load_detector(self, folder: Path, artifact: LoadedArtifact, mode: str) -> Callable[[Floats], HasSegments]:
        """Load FunASR's detector as a function of audio (samples,), with the artifact's network in it."""

    def load_streaming_detector(
        self, folder: Path, artifact: LoadedArtifact
    ) -> Callable[[Floats], Iterator[tuple[int, list[list[int]]]]]:
        """Load it for audio that arrives: piece by piece, the milliseconds that have arrived and the events then.

        An event is [start, end] in milliseconds, [start, -1] when speech was noticed, or [-1, end] when its end was.
        """


class Recognizer(Protocol):
    """A family that turns a segment of speech into text in a pipeline."""

    def load_recognizer(self, folder: Path, artifact: LoadedArtifact) -> Callable[[Floats], HasText]:
        """Load FunASR's recognizer as a function of audio (samples,), with the artifact's network in it."""


class Searchable(Recognizer, Protocol):
    """A recognizer whose tokens a search can choose."""

    def vocabulary(self, folder: Path) -> Vocabulary:
        """Read what a search must know of the tokens; folder: the checkpoint."""

    def load_recognizer(
        self, folder: Path, artifact: LoadedArtifact, search: Search | None = None
    ) -> Callable[[Floats], HasText]:
        """Load FunASR's recognizer as above, with `search` in place of its greedy decoding."""


class StreamingRecognizer(Protocol):
    """A family that gives partial texts of speech that arrives."""

    @property
    def CHUNK_SECONDS(self) -> float:
        """Give the seconds of audio that it takes at a time."""

    def load_streaming_recognizer(self, folder: Path, artifact: LoadedArtifact) -> Callable[[Floats], Iterator[str]]:
        """Load FunASR's recognizer as a function of audio (samples,) that gives the text of each piece of it."""


class Streamed(Protocol):
    """A family that takes audio piece by piece, as a server gets it."""

    def load_stream(self, folder: Path, artifact: LoadedArtifact) -> Callable[[Floats, dict[str, Any], bool], Any]:
        """Load FunASR's pipeline as a function of a piece of audio (samples,), the stream's cache and whether it ends.

        It returns what is new: the piece's text, or [start, end] of events as `load_streaming_detector` has them.
        """


class Splittable(Protocol):
    """A family of features, one run of its graph `model` and decoding: a server can batch that run."""

    def load_features(self, folder: Path) -> Callable[[Floats], Feeds]:
        """Load FunASR's front end as a function of audio (samples,), which gives the graph's inputs without the batch.

        It raises a UserError for audio that has no frame.
        """

    def load_decoder(self, folder: Path) -> Callable[[Feeds, Feeds], list[str]]:
        """Load what follows the network, as a function of a batch of its inputs and outputs: the text of each row."""


class HasEmbedding(Protocol):
    """What a speaker embedding makes of a recording."""

    @property
    def embedding(self) -> Floats:
        """Give a vector."""


class Embedder(Protocol):
    """A family that tells speakers apart."""

    def load_embedder(self, folder: Path, artifact: LoadedArtifact) -> Callable[[Floats], HasEmbedding]:
        """Load FunASR's speaker embedding as a function of audio (samples,), with the artifact's network in it.

        It raises a UserError for audio that is too short for one.
        """


class HasScores(Protocol):
    """What a classifier makes of a recording."""

    @property
    def scores(self) -> Floats:
        """Give a probability for each label."""


class Classifier(Protocol):
    """A family that gives a recording a label."""

    def labels(self, folder: Path) -> tuple[str, ...]:
        """Read the name of each score, in order."""

    def load_classifier(self, folder: Path, artifact: LoadedArtifact) -> Callable[[Floats], HasScores]:
        """Load FunASR's recognizer as a function of audio (samples,), with the artifact's network in it."""


class Punctuator(Protocol):
    """A family that puts marks into a text in a pipeline."""

    def load_punctuator(self, folder: Path, artifact: LoadedArtifact) -> Callable[[Sequence[str]], HasText]:
        """Load FunASR's punctuation as a function of a text's tokens, with the artifact's network in it."""

    def read_marks(self, text: str) -> tuple[list[str], list[str]]:
        """Split a text as FunASR does: its tokens, and the mark after each, `_` for none."""
