"""Fewer feed-forward channels and attention heads of CT-Transformer, refitted and distilled on windows of tokens."""

# ruff: noqa: RUF001  the marks are Chinese

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from stages.core.errors import UserError
from stages.core.params.prune import PruneParams
from stages.corpora.manifest import Recording
from stages.models.ct_transformer.metrics import read_marks
from stages.models.ct_transformer.network import build, export_modules, load_tokenizer, realtime_masks
from stages.models.ct_transformer.words import load_segmenter, split
from stages.models.shared import checkpoint
from stages.models.shared.sanm import with_widths
from stages.models.shared.widths import Widths
from stages.pruning import narrowing, recovery

if TYPE_CHECKING:
    from funasr.models.ct_transformer.model import CTTransformer

WIDTHS = {  # where config.yaml has it, and the layers that have it
    "encoder_conf.linear_units": "encoder.*.feed_forward",
    f"encoder_conf.{narrowing.HEADS}": "encoder.*.self_attn",
}
_NARROWED = Widths(WIDTHS, build, with_widths)
widths, counter, narrowed = _NARROWED.widths, _NARROWED.counter, _NARROWED.narrowed
WINDOW = 48  # tokens: what FunASR sends at a time, 20 new ones and the sentence so far
BATCH = 16


def calibration(folder: Path, recordings: Sequence[Recording], settings: PruneParams) -> torch.Tensor:
    """Read the texts' token ids as one stream, int64 (tokens,), then `variations` times with sentences shuffled.

    Raises:
        UserError: there are fewer tokens than one window.
    """
    tokenizer, segmenter, rng = load_tokenizer(folder), load_segmenter(folder), np.random.default_rng(settings.seed)
    sentences = [s for r in recordings for s in re.findall(r"[^。？]+[。？]?", r.text)]
    orders = [np.arange(len(sentences)), *(rng.permutation(len(sentences)) for _ in range(settings.variations))]
    tokens = [split(read_marks(sentence)[0], segmenter) for sentence in sentences]
    stream = torch.tensor([i for order in orders for n in order for i in tokenizer.encode(tokens[n])])
    if len(stream) < WINDOW:
        raise UserError(f"prune: found {len(stream)} tokens of calibration text, wanted at least {WINDOW}")
    return stream


def logits(model: CTTransformer, windows: torch.Tensor, pauses: torch.Tensor) -> torch.Tensor:
    """Compute logits (batch, tokens, marks) of token ids int64 (batch, tokens), with a pause in each if realtime."""
    size, network = windows.shape[1], export_modules(model)["model"]
    masks = realtime_masks(size, pauses) if model.with_vad() else {}
    found: torch.Tensor = network(windows, torch.full((len(windows),), size), **masks)[0]
    return found


def multiplications(model: CTTransformer) -> int:
    """Count multiply-accumulates for 20 tokens: a token uses every weight once, but the looked-up embedding's."""
    blocks = (model.encoder, model.decoder)
    weights: int = sum(p.numel() for block in blocks for p in block.parameters() if p.dim() > 1)
    return 20 * weights


def cut(
    model: CTTransformer, config: dict[str, Any], calibration: torch.Tensor, criterion: str, damping: float
) -> tuple[CTTransformer, recovery.Refit]:
    """Copy the model into one with the widths of `config`, and return that and what refits it.

    calibration: token ids int64 (tokens,). criterion: one of `stages.pruning.criteria`.
    """
    small = checkpoint.weightless(build, config)
    windows = calibration[: len(calibration) // WINDOW * WINDOW].reshape(-1, WINDOW)
    pauses = torch.zeros(len(windows), dtype=torch.int64)

    def inside(_: str, hidden: torch.Tensor) -> torch.Tensor:
        return torch.ones(hidden.shape[:-1], dtype=torch.bool)

    return small, narrowing.cut(model, small, lambda m: logits(m, windows, pauses), inside, criterion, damping)


def distillation(small: CTTransformer, model: CTTransformer, calibration: torch.Tensor) -> recovery.Loss:
    """Return the loss of one step: the divergence of the small model's marks from the model's on random windows.

    Hinton et al., "Distilling the knowledge in a neural network", 2015, at temperature 1.
    """

    def loss(generator: torch.Generator) -> torch.Tensor:
        starts = torch.randint(len(calibration) - WINDOW + 1, (BATCH,), generator=generator).tolist()
        windows = torch.stack([calibration[start : start + WINDOW] for start in starts])
        pauses = torch.randint(WINDOW, (BATCH,), generator=generator)
        with torch.no_grad():
            wanted = logits(model, windows, pauses)
        return recovery.divergence(logits(small, windows, pauses), wanted)

    return loss
