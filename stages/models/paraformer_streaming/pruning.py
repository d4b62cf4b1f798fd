"""Fewer channels and heads of streaming Paraformer, refitted and distilled on chunks as its encoder is given them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from stages.core.graphs import Feeds
from stages.core.params.prune import PruneParams
from stages.corpora.manifest import Recording
from stages.models.paraformer.pruning import (
    WIDTHS,
    Positions,
    count_multiplications,
    decode,
    distillation_at_tokens,
)
from stages.models.paraformer_streaming.network import (
    CHUNK,
    CHUNK_TOKENS,
    build,
    frame_weights,
    graph_set,
    load,
    load_frontend,
    read_config,
)
from stages.models.paraformer_streaming.scoring import recognize, swap
from stages.models.shared import asr, checkpoint, cif, sanm
from stages.models.shared.frontend import long_enough
from stages.models.shared.sanm import with_widths
from stages.models.shared.widths import Widths
from stages.pruning import augmentation, narrowing, recovery

if TYPE_CHECKING:
    from funasr.models.paraformer_streaming.model import ParaformerStreaming

REFIT_FRAMES = 6000  # of chunks with their overlaps; all dense outputs of them are held


_NARROWED = Widths(WIDTHS, build, with_widths)
counter, narrowed = _NARROWED.counter, _NARROWED.narrowed


@dataclass(frozen=True)
class Chunks:
    """What the encoder is given of recordings, chunk by chunk, padded.

    speech: scaled features with positions and overlap (recordings, chunks, 20, input_size). lengths: (recordings,
    chunks), 0 after the last chunk of a recording.
    """

    speech: torch.Tensor
    lengths: torch.Tensor


def calibration(folder: Path, recordings: Sequence[Recording], settings: PruneParams) -> list[Chunks]:
    """Record what FunASR's own code gives the encoder of each recording, then of `settings.variations` variations."""
    audio = [recording.samples() for recording in recordings]
    audio += augmentation.vary(audio, settings.variations, settings.seed)
    return chunks(folder, audio)


def chunks(folder: Path, audio: Sequence[NDArray[np.float32]]) -> list[Chunks]:
    """Cut each recording of `audio`, float32 (samples,) in [-1, 1), as the encoder is given it."""
    config, model = read_config(folder), load(folder)
    tools = {"tokenizer": asr.load_tokenizer(folder, config), "frontend": load_frontend(folder, config)}
    size, fed = model.encoder.output_size(), []

    def record(feeds: Feeds) -> Feeds:
        fed.append(torch.from_numpy(feeds["speech"][0]))
        shape = feeds["speech"].shape[:2]
        return {"enc": np.zeros((*shape, size), np.float32), "alphas": np.zeros(shape, np.float32)}

    swap(model, (graph_set(model), {"encoder": record, "decoder": record}))
    found = []
    for samples in long_enough(audio, tools["frontend"]):
        fed.clear()
        recognize(model, config, samples, {}, is_final=True, **tools)
        padded = [torch.nn.functional.pad(chunk, (0, 0, 0, sum(CHUNK) - len(chunk))) for chunk in fed]
        found.append(Chunks(torch.stack(padded)[None], torch.tensor([[len(chunk) for chunk in fed]])))
    return found


def cut(
    model: ParaformerStreaming,
    config: dict[str, Any],
    calibration: Sequence[Chunks],
    criterion: str,
    damping: float,
) -> tuple[ParaformerStreaming, recovery.Refit]:
    """Copy the model into one with the widths of `config`, and return that and what refits it.

    calibration: chunks as the function of that name gives them; the first REFIT_FRAMES are used. criterion: one of
    `stages.pruning.criteria`.
    """
    lengths = (int(recording.lengths.sum()) for recording in calibration)
    batch = pad(calibration[: recovery.count_within(lengths, REFIT_FRAMES)])
    small = checkpoint.weightless(build, config)
    with torch.no_grad():
        positions = locate(batch, encode(model, batch)[1])
    frames = sanm.mask(batch.lengths.flatten(), torch.arange(batch.speech.shape[2]))

    def inside(name: str, _: torch.Tensor) -> torch.Tensor:
        return (frames if name.startswith("encoder.") else positions.tokens).rows[:, :, 0] > 0

    def run(network: ParaformerStreaming) -> torch.Tensor:
        return decode(network, encode(network, batch)[0], positions)

    return small, narrowing.cut(model, small, run, inside, criterion, damping)


def pad(recordings: Sequence[Chunks]) -> Chunks:
    """Make one batch of the chunks of some recordings."""

    def padded(parts: list[torch.Tensor]) -> torch.Tensor:
        return torch.nn.utils.rnn.pad_sequence(parts, batch_first=True)

    return Chunks(padded([one.speech[0] for one in recordings]), padded([one.lengths[0] for one in recordings]))


def encode(model: ParaformerStreaming, batch: Chunks) -> tuple[torch.Tensor, torch.Tensor]:
    """Run the encoder over all chunks at once.

    A frame that stands in several chunks has its weight in one, as FunASR has it: not in the context before a chunk,
    and in that after it only where no chunk follows.

    Returns:
        Frames (recordings, chunks * 20, size), and their weights with the tail's (recordings, chunks * 20 + 1).
    """
    positions = torch.arange(batch.speech.shape[2])
    inside = sanm.mask(batch.lengths.flatten(), positions)
    encoded = sanm.encode_blocks(model.encoder, batch.speech.flatten(0, 1), inside)
    weights = frame_weights(model.predictor, encoded, inside).view(batch.speech.shape[:3])
    last = (batch.lengths > 0).sum(dim=1, keepdim=True) - 1 == torch.arange(batch.lengths.shape[1])
    counted = (positions >= CHUNK[0]) & ((positions < sum(CHUNK[:2])) | last[:, :, None])
    weights = torch.nn.functional.pad((weights * counted).flatten(1), (0, 1), value=model.predictor.tail_threshold)
    return encoded.view(*batch.speech.shape[:3], -1).flatten(1, 2), weights


def locate(batch: Chunks, weights: torch.Tensor) -> Positions:
    """Integrate weights, as `encode` gives them, to the positions of tokens; each attends to frames of its chunk."""
    shares, token_num = cif.integrate(weights)
    tokens = sanm.mask(token_num.clamp(min=1), torch.arange(shares.shape[1]))
    size = batch.speech.shape[2]
    frames = torch.arange(shares.shape[2])
    chunk = ((shares > 0) * frames).amax(dim=2, keepdim=True) // size
    inside = (frames % size)[None] < batch.lengths.repeat_interleave(size, dim=1)
    keys = sanm.BLOCKED * ~((frames // size == chunk) & inside[:, None])
    return Positions(tokens, shares, keys[:, None])


def distillation(
    small: ParaformerStreaming, model: ParaformerStreaming, calibration: Sequence[Chunks]
) -> recovery.Loss:
    """Return the loss of one step: the small model's tokens of a few recordings against the dense model's."""
    return distillation_at_tokens(small, model, calibration, pad, encode, locate)


def multiplications(model: ParaformerStreaming) -> int:
    """Count multiply-accumulates for one chunk, weights only: one for each frame, in the decoder for each token."""
    return count_multiplications(model, sum(CHUNK), CHUNK_TOKENS)
