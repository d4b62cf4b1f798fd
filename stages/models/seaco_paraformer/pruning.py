"""Fewer channels and heads of SeACo-Paraformer, all in the parts that are Paraformer's: those for hotwords stay."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from stages.core.params.prune import PruneParams
from stages.corpora.manifest import Recording
from stages.models.paraformer.pruning import WIDTHS, cut_into, features
from stages.models.seaco_paraformer.network import build, read_config
from stages.models.shared import checkpoint
from stages.models.shared.sanm import with_widths
from stages.pruning import narrowing, recovery


def calibration(folder: Path, recordings: Sequence[Recording], settings: PruneParams) -> list[torch.Tensor]:
    """Compute features (frames, input_size) of each recording, then of `settings.variations` variations of each."""
    return features(folder, read_config(folder), recordings, settings)


def narrowed(config: dict[str, Any], removed: float, steps: Mapping[str, int]) -> dict[str, Any]:
    """Choose the widths, multiples of `steps`, that remove closest to `removed` of all parameters."""
    return with_widths(config, narrowing.narrowed(checkpoint.weightless(build, config), WIDTHS, removed, steps))


def counter(config: dict[str, Any]) -> Callable[[Mapping[str, int]], int]:
    """Return a function that counts the parameters of the model with other widths, by the keys of `widths`."""
    return narrowing.counter(checkpoint.weightless(build, config), WIDTHS)


def cut(
    model: Any, config: dict[str, Any], calibration: Sequence[torch.Tensor], criterion: str, damping: float
) -> tuple[Any, recovery.Refit]:
    """Copy the model into one with the widths of `config`, and return that and what refits it.

    calibration: features as the function of that name gives them. criterion: one of `stages.pruning.criteria`.
    """
    small = checkpoint.weightless(build, config)
    return small, cut_into(small, model, calibration, criterion, damping)
