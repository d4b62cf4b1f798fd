"""Fewer channels and heads of Paraformer, refitted, and distilled with tokens where the dense model has them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from stages.core.params.prune import PruneParams
from stages.corpora.manifest import Recording
from stages.models.paraformer.network import FRAME_SECONDS, SECTIONS, build, load_frontend, read_config
from stages.models.shared import checkpoint, cif, sanm
from stages.models.shared.frontend import long_enough
from stages.models.shared.sanm import with_widths
from stages.models.shared.widths import Widths
from stages.pruning import augmentation, narrowing, recovery

WIDTHS = {  # where config.yaml has it, and the layers that have it
    "encoder_conf.linear_units": "encoder.*.feed_forward",
    "decoder_conf.linear_units": "decoder.*.feed_forward",
    f"encoder_conf.{narrowing.HEADS}": "encoder.*.self_attn",
    f"decoder_conf.{narrowing.HEADS}": "decoder.*.src_attn",
}
_NARROWED = Widths(WIDTHS, build, with_widths)
widths, counter, narrowed = _NARROWED.widths, _NARROWED.counter, _NARROWED.narrowed
REFIT_FRAMES = 6000  # three for each channel of the widest layer that is left; all dense outputs of them are held
BATCH = 4  # recordings in a step of distillation
TOKENS_10S = 45  # Mandarin is spoken at about that many characters
R = TypeVar("R")
B = TypeVar("B")


@dataclass(frozen=True)
class Batch:
    """Padded features (batch, frames, input_size), their lengths (batch,) and the mask of what is not padding."""

    speech: torch.Tensor
    lengths: torch.Tensor
    inside: sanm.Mask


@dataclass(frozen=True)
class Positions:
    """Where tokens are: their mask, the shares of frames in them, and what is added to their scores of the frames."""

    tokens: sanm.Mask
    shares: torch.Tensor
    keys: torch.Tensor


def calibration(folder: Path, recordings: Sequence[Recording], settings: PruneParams) -> list[torch.Tensor]:
    """Compute features (frames, input_size) of each recording, then of `settings.variations` variations of each."""
    return features(folder, read_config(folder), recordings, settings)


def features(
    folder: Path, config: dict[str, Any], recordings: Sequence[Recording], settings: PruneParams
) -> list[torch.Tensor]:
    """Compute what `calibration` gives, with the front end of a configuration of any offline Paraformer."""
    frontend = load_frontend(folder, config)
    audio = long_enough([recording.samples() for recording in recordings], frontend)
    audio += augmentation.vary(audio, settings.variations, settings.seed)
    return [frontend(torch.from_numpy(samples)[None], [len(samples)])[0][0] for samples in audio]


def cut(
    model: Any, config: dict[str, Any], calibration: Sequence[torch.Tensor], criterion: str, damping: float
) -> tuple[Any, recovery.Refit]:
    """Copy the model into one with the widths of `config`, and return that and what refits it.

    calibration: features as the function of that name gives them; the first REFIT_FRAMES are used. criterion: one of
    `stages.pruning.criteria`.
    """
    small = checkpoint.weightless(build, config)
    return small, cut_into(small, model, calibration, criterion, damping)


def cut_into(
    small: Any, model: Any, calibration: Sequence[torch.Tensor], criterion: str, damping: float
) -> recovery.Refit:
    """Fill a smaller offline Paraformer with the most useful channels of the model; return what refits it."""
    batch = pad(calibration[: recovery.count_within(map(len, calibration), REFIT_FRAMES)])
    with torch.no_grad():
        positions = locate(batch, encode(model, batch)[1])

    def inside(name: str, _: torch.Tensor) -> torch.Tensor:
        return (batch.inside if name.startswith("encoder.") else positions.tokens).rows[:, :, 0] > 0

    def run(network: Any) -> torch.Tensor:
        return decode(network, encode(network, batch)[0], positions)

    return narrowing.cut(model, small, run, inside, criterion, damping)


def pad(features: Sequence[torch.Tensor]) -> Batch:
    """Make one batch of features (frames, input_size) of some recordings."""
    speech = torch.nn.utils.rnn.pad_sequence(list(features), batch_first=True)
    lengths = torch.tensor([len(f) for f in features], dtype=torch.int32)
    return Batch(speech, lengths, sanm.mask(lengths, torch.arange(speech.shape[1])))


def encode(model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Run the encoder: frames (batch, frames, size), and their weights as CIF integrates them."""
    encoded = sanm.encode(model.encoder, batch.speech, batch.inside)
    return encoded, cif.frame_weights(model.predictor, encoded, batch.lengths)


def locate(batch: Batch, weights: torch.Tensor) -> Positions:
    """Integrate the weights of frames, as `encode` gives them, to the positions of tokens."""
    shares, token_num = cif.integrate(weights)
    tokens = sanm.mask(token_num.clamp(min=1), torch.arange(shares.shape[1]))
    return Positions(tokens, shares, batch.inside.keys)


def decode(model: Any, encoded: torch.Tensor, positions: Positions) -> torch.Tensor:
    """Run the decoder: logits (tokens of all recordings, vocabulary) of frames (recordings, frames, size)."""
    tokens = positions.tokens
    hidden = sanm.decode(model.decoder, positions.shares @ encoded * tokens.rows, tokens, encoded, positions.keys)
    logits: torch.Tensor = model.decoder.output_layer(hidden[tokens.rows[:, :, 0] > 0])
    return logits


def distillation(small: Any, model: Any, calibration: Sequence[torch.Tensor]) -> recovery.Loss:
    """Return the loss of one step: the small model's tokens of a few recordings against the dense model's."""
    return distillation_at_tokens(small, model, calibration, pad, encode, locate)


def distillation_at_tokens(
    small: Any,
    model: Any,
    recordings: Sequence[R],
    pad: Callable[[Sequence[R]], B],
    encode: Callable[[Any, B], tuple[torch.Tensor, torch.Tensor]],
    locate: Callable[[B, torch.Tensor], Positions],
) -> recovery.Loss:
    """Return the loss of one step, with tokens where the dense model has them.

    Hinton et al., "Distilling the knowledge in a neural network", 2015, at temperature 1, with the dense model's
    shares of frames in tokens for both, so that their tokens line up, as Paraformer itself is trained with the
    transcript's number of them (section 3.3 of its paper). The small model's own weights of the frames are held to the
    dense model's: their L1 distance for a token bounds the error of that paper's quantity loss.

    recordings: features of each. pad: makes a batch of some. encode: gives frames and their weights. locate: finds the
    positions of tokens from the weights.
    """

    def step(generator: torch.Generator) -> torch.Tensor:
        chosen = torch.randint(len(recordings), (BATCH,), generator=generator).tolist()
        batch = pad([recordings[i] for i in chosen])
        with torch.no_grad():
            encoded, wanted_weights = encode(model, batch)
            positions = locate(batch, wanted_weights)
            wanted = decode(model, encoded, positions)
        encoded, weights = encode(small, batch)
        found = decode(small, encoded, positions)
        quantity: torch.Tensor = (weights - wanted_weights).abs().sum() / len(found)
        return recovery.divergence(found, wanted) + quantity

    return step


def multiplications(model: Any) -> int:
    """Count multiply-accumulates for 10 s, weights only: one for each frame, in the decoder for each token."""
    return count_multiplications(model, round(10 / FRAME_SECONDS), TOKENS_10S)


def count_multiplications(model: Any, frames: int, tokens: int) -> int:
    """Count multiply-accumulates of any Paraformer's weights for so many frames and tokens."""
    sections = tuple(f"{section}." for section in SECTIONS)
    used = {n: p.numel() for n, p in model.named_parameters() if p.dim() > 1 and n.startswith(sections)}
    per_token = {n for n in used if n.startswith("decoder.") and "linear_k_v" not in n}
    unread = {n for n in used if n.startswith("decoder.embed")}
    return sum(size * (tokens if n in per_token else frames) for n, size in used.items() if n not in unread)
