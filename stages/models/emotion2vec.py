"""emotion2vec, FunASR's speech emotion recognizer: one graph from a waveform to embeddings and label scores.

Ma et al., "emotion2vec: Self-Supervised Pre-Training for Speech Emotion Representation", 2023. FunASR's own
inference (normalized waveform, mean over frames, softmax, label list) runs unchanged; only the network is swapped.
"""

from __future__ import annotations

import copy
import functools
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from stages.core.errors import UserError
from stages.core.graphs import Axis, Case, Graph, GraphSet, Tensor
from stages.core.params.prune import PruneParams
from stages.core.parity import Artifact, Network
from stages.core.statistics import Counts, Metric
from stages.corpora.manifest import SAMPLE_RATE, Recording
from stages.models import checkpoint, tokens
from stages.models.schemas import emotion2vec as schema
from stages.pruning import narrowing, recovery

if TYPE_CHECKING:
    from funasr.models.emotion2vec.model import Emotion2vec
    from funasr.tokenizer.char_tokenizer import CharTokenizer

Floats = NDArray[np.float32]

SCHEMAS = {"Emotion2vec": schema.Emotion2vec}
TOKENS = ("tokens.txt", "tokens.json")
UNKNOWN = "unknown"  # what the model's authors call the label that its token list has as <unk>


def read_config(folder: Path) -> dict[str, Any]:
    """config.yaml of a checkpoint, with the number of labels as `vocab_size`.

    Raises:
        UserError: it is not what the schema wants, or the label list is missing or malformed.
    """
    config, typed = checkpoint.read_config(folder, "emotion2vec", SCHEMAS)
    return config | {"vocab_size": len(tokens.read(folder, typed.vocab_size, TOKENS))}


def load_tokenizer(folder: Path) -> CharTokenizer:
    """FunASR's tokenizer, of which emotion2vec uses the list of labels.

    Raises:
        UserError: there is no list of labels, or FunASR cannot use it.
    """
    return tokens.tokenizer(tokens.read(folder, files=TOKENS))


def build(config: dict[str, Any]) -> Emotion2vec:
    """FunASR's module for a configuration, with random weights, in evaluation mode, without pre-training's decoder."""
    with checkpoint.importing_funasr():
        from funasr.models.emotion2vec.model import Emotion2vec

    conf = copy.deepcopy(config["model_conf"])
    conf["modalities"]["audio"]["decoder"] = None
    model = Emotion2vec(model_conf=conf, vocab_size=config["vocab_size"])
    model.modality_encoders["AUDIO"].remove_pretraining_modules()
    return model.eval()


def load(folder: Path) -> Emotion2vec:
    """The checkpoint as FunASR's own module, in evaluation mode.

    Names are mapped as config.yaml's `scope_map` says (the hub's weights start with `d2v_model.`), and what only
    pre-training used is left out, as FunASR's loader does it.

    Raises:
        UserError: config.yaml, the label list or model.pt is not what the family needs.
    """
    return checkpoint.load(build, read_config(folder), folder)


# Scoring


@dataclass(frozen=True)
class Outcome:
    """What the recognizer said of one recording.

    scores: a probability for each label, float32 (labels,). embedding: of the utterance, float32 (embed_dim,).
    """

    scores: Floats
    embedding: Floats


class _Head(torch.nn.Module):
    """Takes the places of FunASR's network and its last layer: runs the graph once and gives each its output."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def extract_features(self, source: torch.Tensor, **_: Any) -> dict[str, torch.Tensor]:
        """Frame embeddings (1, frames, embed_dim) of a normalized waveform (1, samples)."""
        self.outputs = self.network({"source": source.numpy()})
        return {"x": torch.from_numpy(self.outputs["frame_embeddings"])}

    def forward(self, _: torch.Tensor) -> torch.Tensor:
        """Logits (1, labels) of the waveform that `extract_features` was given last, in memory of their own."""
        return torch.from_numpy(self.outputs["logits"].copy())


def score(folder: Path, artifact: Artifact, mode: str, recordings: Sequence[Recording]) -> list[Outcome]:
    """Run FunASR's recognizer over the recordings with the artifact's network in the place of its own.

    mode: FunASR's granularity, `utterance`.
    """
    torch.set_num_threads(1)
    model, tokenizer = load(folder), load_tokenizer(folder)
    head = _Head(artifact[1]["model"])
    model.proj, model.extract_features = head, head.extract_features
    outcomes = []
    for recording in recordings:
        samples = torch.from_numpy(recording.samples())
        with torch.inference_mode():
            (result,), _ = model.inference(
                [samples], key=[recording.id], tokenizer=tokenizer, device="cpu", granularity=mode
            )
        outcomes.append(Outcome(np.asarray(result["scores"], np.float32), np.asarray(result["feats"], np.float32)))
    return outcomes


# Export


class ExportedNetwork(torch.nn.Module):
    """FunASR's network with the mean over frames and the last layer, as the exporter can follow it.

    FunASR keeps the attention's linear biases (Press et al., "Train Short, Test Long", 2022) of the longest input
    so far, and looks at the size to know if they will do; here they are computed from the number of frames.
    """

    def __init__(self, model: Emotion2vec) -> None:
        """Share the weights of `model`."""
        super().__init__()
        self.model = copy.deepcopy(model, {id(weight): weight for weight in model.parameters()})
        encoder = self.model.modality_encoders["AUDIO"]
        if encoder.get_alibi_bias is not None:
            encoder.get_alibi_bias = _alibi_bias

    def forward(self, source: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Embeddings of frames (1, frames, embed_dim) and utterance (1, embed_dim), and logits (1, labels).

        source: waveform (1, samples) at 16 kHz, of zero mean and unit variance where `model_conf.normalize` is set.
        """
        frames = self.model.extract_features(source)["x"]
        utterance = frames.mean(dim=1)
        return frames, utterance, self.model.proj(utterance)


def _alibi_bias(*, batch_size: int, time_steps: int, heads: int, dtype: torch.dtype, device: Any) -> torch.Tensor:
    """Attention biases (batch_size, heads, time_steps, time_steps): minus the distance, times each head's slope."""
    with checkpoint.importing_funasr():
        from funasr.models.emotion2vec.base import get_alibi

    places = torch.arange(time_steps, dtype=dtype, device=device)
    distance = (places[:, None] - places[None]).abs()
    nearest = get_alibi(2, heads)[:, :1, 1:].to(dtype)  # minus the slopes: the biases of a distance of 1
    biases: torch.Tensor = (nearest * distance)[None].expand(batch_size, -1, -1, -1)
    return biases


def graph_set(model: Emotion2vec) -> GraphSet:
    """The one graph of the family.

    Its input is what FunASR's `inference` gives its network: normalization stays in front of it, where it is exact
    for silence and does not lose precision to fp16. Batch is 1: the network is run without a padding
    mask, so that padding would be attended to and counted in the mean.
    """
    width, labels = model.cfg.embed_dim, model.proj.out_features
    return GraphSet(
        graphs={
            "model": Graph(
                file="model.onnx",
                inputs={"source": Tensor(dtype="float32", shape=[1, "samples"])},
                outputs={
                    "frame_embeddings": Tensor(dtype="float32", shape=[1, "frames", width]),
                    "embedding": Tensor(dtype="float32", shape=[1, width]),
                    "logits": Tensor(dtype="float32", shape=[1, labels]),
                },
                states={},
                axes={"samples": Axis(min=_shortest(model), opt=3 * SAMPLE_RATE, max=30 * SAMPLE_RATE)},
            )
        },
        cases={f"{s}s": Case(sizes={"samples": s * SAMPLE_RATE}, seconds=s) for s in (1, 3, 10)},
    )


def _shortest(model: Emotion2vec) -> int:
    """Samples of which the extractor makes one frame."""
    samples = 1
    for _, kernel, stride in reversed(model.modality_encoders["AUDIO"].feature_enc_layers):
        samples = (samples - 1) * stride + kernel
    return samples


def export_modules(model: Emotion2vec) -> dict[str, torch.nn.Module]:
    """The module behind each graph of `graph_set`."""
    return {"model": ExportedNetwork(model)}


# Accuracy

MODES = ("utterance",)
HEADLINE = "label_agreement"
METRICS = {
    # against the fp32 torch baseline
    "label_agreement": Metric(higher_is_better=True),
    "embedding_cosine": Metric(higher_is_better=True),
    "score_distance": Metric(higher_is_better=False),
    # against the known truth
    "weighted_accuracy": Metric(higher_is_better=True),
    "unweighted_accuracy": Metric(higher_is_better=True),
}


@functools.cache
def labels(folder: Path) -> tuple[str, ...]:
    """The English name of each score, in order: `angry` for the label list's `生气/angry`, `unknown` for `<unk>`."""
    tokens = load_tokenizer(folder).token_list
    names = (token.rpartition("/")[2] for token in tokens if not token.startswith("unuse"))
    return tuple(UNKNOWN if name == "<unk>" else name for name in names)


def measure(
    folder: Path, recordings: Sequence[Recording], references: Sequence[Outcome], outcomes: Sequence[Outcome]
) -> list[Counts]:
    """Every metric of each recording as (numerator, denominator).

    Weighted accuracy is the share of recordings that are right; unweighted accuracy the mean over labels of the share
    that is right, so that a frequent label counts no more than a rare one (Schuller et al., "The INTERSPEECH 2009
    Emotion Challenge", 2009). For the second a recording weighs as much as its label is rare. Score distance is the
    total variation between two distributions over labels: 0 for equal, 1 for disjoint.

    Raises:
        UserError: a recording's label is not one of the model's.
    """
    names = labels(folder)
    for recording in recordings:
        if recording.label not in names:
            raise UserError(
                f"{recording.folder}: {recording.id}: found label {recording.label!r}, wanted one of {', '.join(names)}"
            )
    count = Counter(r.label for r in recordings)
    return [
        _measured(names.index(r.label), 1 / count[r.label], reference, outcome)
        for r, reference, outcome in zip(recordings, references, outcomes, strict=True)
    ]


def _measured(truth: int, weight: float, reference: Outcome, outcome: Outcome) -> Counts:
    found = int(outcome.scores.argmax())
    right = float(found == truth)
    a, b = (x.embedding.astype(np.float64) for x in (reference, outcome))
    return {
        "label_agreement": (float(found == int(reference.scores.argmax())), 1),
        "embedding_cosine": (float(a @ b) / float(np.linalg.norm(a) * np.linalg.norm(b) + 1e-12), 1),
        "score_distance": (float(np.abs(outcome.scores - reference.scores).sum() / 2), 1),
        "weighted_accuracy": (right, 1),
        "unweighted_accuracy": (right * weight, weight),
    }


# What `reference` keeps


def write_outcomes(folder: Path, mode: str, outcomes: Sequence[Outcome]) -> None:
    """Keep outcomes of one mode for `read_outcomes`."""
    np.savez_compressed(
        folder / f"{mode}.npz",
        scores=np.stack([o.scores for o in outcomes]),
        embedding=np.stack([o.embedding for o in outcomes]),
    )


def read_outcomes(folder: Path, mode: str) -> list[Outcome]:
    """What `write_outcomes` kept, in the same order."""
    with np.load(folder / f"{mode}.npz") as kept:
        return [Outcome(*of_one) for of_one in zip(kept["scores"], kept["embedding"], strict=True)]


# Pruning: all feed-forward layers have one width, `mlp_ratio` times `embed_dim`

WIDTHS = {"mlp": "*.mlp"}
CROP, HOP = SAMPLE_RATE, SAMPLE_RATE // 2  # samples: of one length, so that many run together without padding
REFIT_CROPS = 128  # more cost memory in the extractor, and gain nothing
BATCH = 16  # crops in a step of distillation
CASE_SAMPLES = 10 * SAMPLE_RATE


def calibration(folder: Path, recordings: Sequence[Recording], settings: PruneParams) -> torch.Tensor:
    """Crops of 1 s of the recordings and variations of them, (crops, samples), as the network takes them.

    Raises:
        UserError: there are too few recordings of a second or more.
    """
    audio = [r.samples() for r in recordings]
    varied = [*audio, *recovery.vary(audio, settings.variations, settings.seed)]
    crops = [torch.from_numpy(samples).unfold(0, CROP, HOP) for samples in varied if len(samples) >= CROP]
    if sum(map(len, crops)) < BATCH:
        raise UserError(f"prune: found {len(crops)} recordings of 1 s or more to calibrate on, wanted at least {BATCH}")
    stacked = torch.cat(crops)
    normalize = read_config(folder)["model_conf"].get("normalize")
    return torch.nn.functional.layer_norm(stacked, (CROP,)) if normalize else stacked


def widths(model: Emotion2vec) -> dict[str, int]:
    """The layer widths that pruning changes."""
    return narrowing.widths(model, WIDTHS)


def multiplications(model: Emotion2vec) -> int:
    """Multiply-accumulates for 10 s of audio, weights only: the extractor's at each layer's rate, others by frame."""
    encoder = model.modality_encoders["AUDIO"]
    length, total = CASE_SAMPLES, 0
    for (_, kernel, stride), layer in zip(encoder.feature_enc_layers, encoder.local_encoder.conv_layers, strict=True):
        length = (length - kernel) // stride + 1
        total += length * layer[0].weight.numel()
    networks = (encoder.project_features, encoder.relative_positional_encoder, encoder.context_encoder, model.blocks)
    kinds = (torch.nn.Linear, torch.nn.Conv1d)
    weights = sum(m.weight.numel() for network in networks for m in network.modules() if isinstance(m, kinds))
    return int(total + length * weights + model.proj.weight.numel())


def narrowed(config: dict[str, Any], removed: float, steps: Mapping[str, int]) -> dict[str, Any]:
    """The configuration with the `mlp_ratio` that removes closest to `removed` of the parameters.

    steps: what the width of the feed-forward layers is to be a multiple of, by the key of `widths`.
    """
    return with_widths(config, narrowing.narrowed(checkpoint.weightless(build, config), WIDTHS, removed, steps))


def with_widths(config: dict[str, Any], new: Mapping[str, int]) -> dict[str, Any]:
    """The configuration with the width, by the key of `widths`, changed."""
    conf = config["model_conf"]
    if "mlp" not in new:
        return config
    # FunASR cuts off what the product with embed_dim has after the point, so the ratio must not be a hair too small.
    return config | {"model_conf": conf | {"mlp_ratio": math.ceil(new["mlp"] / conf["embed_dim"] * 1e6) / 1e6}}


def counter(config: dict[str, Any]) -> Callable[[Mapping[str, int]], int]:
    """How many parameters the model has with another width, by the key of `widths`."""
    return narrowing.counter(checkpoint.weightless(build, config), WIDTHS)


def cut(
    model: Emotion2vec, config: dict[str, Any], crops: torch.Tensor, criterion: str, damping: float
) -> tuple[Emotion2vec, recovery.Refit]:
    """A copy of the model with the narrower feed-forward layers of `config`, and what refits it.

    crops: waveforms (crops, samples). criterion: one of `stages.pruning.criteria`.
    """

    def run(network: Emotion2vec) -> torch.Tensor:
        scores: torch.Tensor = network.proj(network.extract_features(crops[:REFIT_CROPS])["x"].mean(dim=1))
        return scores

    small = checkpoint.weightless(build, config)
    return small, narrowing.cut(model, small, run, _no_padding, criterion, damping)


def _no_padding(_: str, hidden: torch.Tensor) -> torch.Tensor:
    return torch.ones(hidden.shape[:-1], dtype=torch.bool)


def distillation(small: Emotion2vec, model: Emotion2vec, crops: torch.Tensor) -> recovery.Loss:
    """The loss of one step: how far the small model's scores and frame embeddings are from the model's on random crops.

    Hinton et al., "Distilling the knowledge in a neural network", 2015, at temperature 1, plus the mean squared
    difference of embeddings (Romero et al., "FitNets", 2015), which users of emotion2vec build on.

    crops: waveforms (crops, samples).
    """

    def loss(generator: torch.Generator) -> torch.Tensor:
        source = crops[torch.randint(len(crops), (BATCH,), generator=generator)]
        with torch.no_grad():
            wanted = model.extract_features(source)["x"]
            scores = model.proj(wanted.mean(dim=1))
        found = small.extract_features(source)["x"]
        difference = torch.nn.functional.mse_loss(found, wanted)
        return difference + recovery.divergence(small.proj(found.mean(dim=1)), scores)

    return loss
