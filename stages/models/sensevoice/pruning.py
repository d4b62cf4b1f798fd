"""Fewer channels and heads of SenseVoice, refitted, and distilled with both ways of writing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from stages.core.params.prune import PruneParams
from stages.corpora.manifest import Recording
from stages.models.paraformer.network import FRAME_SECONDS
from stages.models.paraformer.pruning import BATCH, REFIT_FRAMES, features
from stages.models.sensevoice.network import QUERIES, Recognizer, build, read_config, with_widths
from stages.models.sensevoice.scoring import LANGUAGE
from stages.models.shared import checkpoint, sanm
from stages.models.shared.widths import Widths
from stages.pruning import narrowing, recovery

WIDTHS = {  # where config.yaml has it, and the layers that have it
    "encoder_conf.linear_units": "encoder.*.feed_forward",
    f"encoder_conf.{narrowing.HEADS}": "encoder.*.self_attn",
}
_NARROWED = Widths(WIDTHS, build, with_widths)
widths, counter, narrowed = _NARROWED.widths, _NARROWED.counter, _NARROWED.narrowed


def calibration(folder: Path, recordings: Sequence[Recording], settings: PruneParams) -> list[torch.Tensor]:
    """Compute features (frames, input_size) of each recording, then of `settings.variations` variations of each."""
    return features(folder, read_config(folder), recordings, settings)


def cut(
    model: Any, config: dict[str, Any], calibration: Sequence[torch.Tensor], criterion: str, damping: float
) -> tuple[Any, recovery.Refit]:
    """Copy the model into one with the widths of `config`, and return that and what refits it.

    calibration: features as the function of that name gives them; the first REFIT_FRAMES are used, every other one
    with figures. criterion: one of `stages.pruning.criteria`.
    """
    small = checkpoint.weightless(build, config)
    chosen = calibration[: recovery.count_within(map(len, calibration), REFIT_FRAMES)]
    styles = list(model.textnorm_dict.values())
    textnorm = [styles[number % len(styles)] for number in range(len(chosen))]
    speech, lengths = _pad(chosen)
    rows = _inside(lengths)

    def run(network: Any) -> torch.Tensor:
        return _logits(network, speech, lengths, textnorm)

    return small, narrowing.cut(model, small, run, lambda *_: rows, criterion, damping)


def _pad(features: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Make one batch of features (frames, input_size): (batch, frames, input_size), and their lengths (batch,)."""
    lengths = torch.tensor([len(f) for f in features], dtype=torch.int32)
    return torch.nn.utils.rnn.pad_sequence(list(features), batch_first=True), lengths


def _inside(lengths: torch.Tensor) -> torch.Tensor:
    """Return which positions of a padded batch are not padding, bool (batch, QUERIES + frames)."""
    return sanm.mask(lengths + QUERIES, torch.arange(QUERIES + int(lengths.max()))).rows[:, :, 0] > 0


def _logits(model: Any, speech: torch.Tensor, lengths: torch.Tensor, textnorm: Sequence[int]) -> torch.Tensor:
    """Compute logits (positions of all recordings, vocabulary), the language not told."""
    language = torch.full((len(lengths),), model.lid_dict[LANGUAGE])
    found, _ = Recognizer(model)(speech, lengths, language, torch.tensor(textnorm))
    logits: torch.Tensor = found[_inside(lengths)]
    return logits


def distillation(small: Any, model: Any, calibration: Sequence[torch.Tensor]) -> recovery.Loss:
    """Return the loss of one step: the divergence of the small model's tokens of a few recordings from the model's.

    Hinton et al., "Distilling the knowledge in a neural network", 2015, at temperature 1, at every position.
    """
    styles = list(model.textnorm_dict.values())

    def step(generator: torch.Generator) -> torch.Tensor:
        chosen = torch.randint(len(calibration), (BATCH,), generator=generator).tolist()
        drawn = torch.randint(len(styles), (BATCH,), generator=generator).tolist()
        batch = (*_pad([calibration[i] for i in chosen]), [styles[i] for i in drawn])
        with torch.no_grad():
            wanted = _logits(model, *batch)
        return recovery.divergence(_logits(small, *batch), wanted)

    return step


def multiplications(model: Any) -> int:
    """Count multiply-accumulates for 10 s, weights only: one for each position."""
    parts = (model.encoder, model.ctc)
    weights: int = sum(p.numel() for part in parts for p in part.parameters() if p.dim() > 1)
    return (QUERIES + round(10 / FRAME_SECONDS)) * weights
