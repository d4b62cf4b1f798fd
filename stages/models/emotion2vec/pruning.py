"""Narrower feed-forward layers of emotion2vec: all have one width, `mlp_ratio` times `embed_dim`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from stages.core.errors import UserError
from stages.core.params.prune import PruneParams
from stages.corpora.manifest import SAMPLE_RATE, Recording
from stages.models.emotion2vec.network import build, read_config
from stages.models.shared import checkpoint
from stages.models.shared.widths import Widths
from stages.pruning import augmentation, narrowing, recovery

if TYPE_CHECKING:
    from funasr.models.emotion2vec.model import Emotion2vec

WIDTHS = {"mlp": "*.mlp"}
CROP, HOP = SAMPLE_RATE, SAMPLE_RATE // 2  # samples: of one length, so that many run together without padding
REFIT_CROPS = 128  # more cost memory in the extractor, and gain nothing
BATCH = 16  # crops in a step of distillation
CASE_SAMPLES = 10 * SAMPLE_RATE


def calibration(folder: Path, recordings: Sequence[Recording], settings: PruneParams) -> torch.Tensor:
    """Cut the recordings and variations of them into crops of 1 s, (crops, samples), as the network takes them.

    Raises:
        UserError: there are too few recordings of a second or more.
    """
    audio = [r.samples() for r in recordings]
    varied = [*audio, *augmentation.vary(audio, settings.variations, settings.seed)]
    crops = [torch.from_numpy(samples).unfold(0, CROP, HOP) for samples in varied if len(samples) >= CROP]
    if (count := sum(map(len, crops))) < BATCH:
        raise UserError(f"prune: found {count} crops of 1 s in {len(audio)} recordings, wanted at least {BATCH}")
    stacked = torch.cat(crops)
    normalize = read_config(folder)["model_conf"].get("normalize")
    return torch.nn.functional.layer_norm(stacked, (CROP,)) if normalize else stacked


def multiplications(model: Emotion2vec) -> int:
    """Count multiply-accumulates for 10 s, weights only: the extractor's at each layer's rate, others by frame."""
    encoder = model.modality_encoders["AUDIO"]
    length, total = CASE_SAMPLES, 0
    for (_, kernel, stride), layer in zip(encoder.feature_enc_layers, encoder.local_encoder.conv_layers, strict=True):
        length = (length - kernel) // stride + 1
        total += length * layer[0].weight.numel()
    networks = (encoder.project_features, encoder.relative_positional_encoder, encoder.context_encoder, model.blocks)
    kinds = (torch.nn.Linear, torch.nn.Conv1d)
    weights = sum(m.weight.numel() for network in networks for m in network.modules() if isinstance(m, kinds))
    return int(total + length * weights + model.proj.weight.numel())


def with_widths(config: dict[str, Any], new: Mapping[str, int]) -> dict[str, Any]:
    """Return the configuration with the width, by the key of `widths`, changed."""
    conf = config["model_conf"]
    if "mlp" not in new:
        return config
    # FunASR cuts off what the product with embed_dim has after the point, so the ratio must not be a hair too small.
    return config | {"model_conf": conf | {"mlp_ratio": math.ceil(new["mlp"] / conf["embed_dim"] * 1e6) / 1e6}}


_NARROWED = Widths(WIDTHS, build, with_widths)
widths, counter, narrowed = _NARROWED.widths, _NARROWED.counter, _NARROWED.narrowed


def cut(
    model: Emotion2vec, config: dict[str, Any], calibration: torch.Tensor, criterion: str, damping: float
) -> tuple[Emotion2vec, recovery.Refit]:
    """Copy the model into one with the narrower layers of `config`, and return that and what refits it.

    calibration: waveforms (crops, samples). criterion: one of `stages.pruning.criteria`.
    """

    def run(network: Emotion2vec) -> torch.Tensor:
        scores: torch.Tensor = network.proj(network.extract_features(calibration[:REFIT_CROPS])["x"].mean(dim=1))
        return scores

    small = checkpoint.weightless(build, config)
    return small, narrowing.cut(model, small, run, _keep_all_frames, criterion, damping)


def _keep_all_frames(_: str, hidden: torch.Tensor) -> torch.Tensor:
    return torch.ones(hidden.shape[:-1], dtype=torch.bool)


def distillation(small: Emotion2vec, model: Emotion2vec, calibration: torch.Tensor) -> recovery.Loss:
    """Return the loss of one step: how far the small model's scores and embeddings are from the model's.

    Hinton et al., "Distilling the knowledge in a neural network", 2015, at temperature 1, plus the mean squared
    difference of embeddings (Romero et al., "FitNets", 2015), which users of emotion2vec build on.

    calibration: waveforms (crops, samples).
    """

    def loss(generator: torch.Generator) -> torch.Tensor:
        source = calibration[torch.randint(len(calibration), (BATCH,), generator=generator)]
        with torch.no_grad():
            wanted = model.extract_features(source)["x"]
            scores = model.proj(wanted.mean(dim=1))
        found = small.extract_features(source)["x"]
        difference = torch.nn.functional.mse_loss(found, wanted)
        return difference + recovery.divergence(small.proj(found.mean(dim=1)), scores)

    return loss
