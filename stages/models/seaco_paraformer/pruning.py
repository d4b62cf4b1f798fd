"""Fewer channels and heads of SeACo-Paraformer, all in the parts that are Paraformer's: those for hotwords stay."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from stages.core.params.prune import PruneParams
from stages.corpora.manifest import Recording
from stages.models.paraformer.pruning import WIDTHS, cut_into, features
from stages.models.seaco_paraformer.network import build, read_config
from stages.models.shared import checkpoint
from stages.models.shared.sanm import with_widths
from stages.models.shared.widths import Widths
from stages.pruning import recovery

_NARROWED = Widths(WIDTHS, build, with_widths)
counter, narrowed = _NARROWED.counter, _NARROWED.narrowed


def calibration(folder: Path, recordings: Sequence[Recording], settings: PruneParams) -> list[torch.Tensor]:
    """Compute features (frames, input_size) of each recording, then of `settings.variations` variations of each."""
    return features(folder, read_config(folder), recordings, settings)


def cut(
    model: Any, config: dict[str, Any], calibration: Sequence[torch.Tensor], criterion: str, damping: float
) -> tuple[Any, recovery.Refit]:
    """Copy the model into one with the widths of `config`, and return that and what refits it.

    calibration: features as the function of that name gives them. criterion: one of `stages.pruning.criteria`.
    """
    small = checkpoint.weightless(build, config)
    return small, cut_into(small, model, calibration, criterion, damping)
