"""What FSMN-VAD is pruned on: a stream of features and, for calibration, those of mixtures that are new every time."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from stages.core.errors import UserError
from stages.core.params.prune import PruneParams
from stages.corpora.manifest import SAMPLE_RATE, Recording
from stages.models.fsmn_vad.network import FRAME_MS, load_frontend
from stages.models.shared.frontend import long_enough
from stages.pruning import augmentation

Floats = NDArray[np.float32]
Features = Callable[[Floats], torch.Tensor]
"""Computes the encoder's inputs (frames, input_dim) of audio (samples,) in [-1, 1)."""
Crops = Callable[[np.random.Generator], torch.Tensor]
"""Draws crops (BATCH, CROP, input_dim) of the encoder's inputs."""

BATCH = 2  # crops in a step of distillation
CROP = 600  # frames: two long crops waste less on masked context than four short ones
CROP_SAMPLES = (CROP + 10) * FRAME_MS * SAMPLE_RATE // 1000  # the last frames need more than they are apart
MIXTURE_SAMPLES = 10 * SAMPLE_RATE  # of one mixture in the stream


@dataclass(frozen=True)
class Stream:
    """Features of one split.

    frames: one stream (frames, input_dim). fresh: gives crops of new mixtures; without, crops are of the stream.
    """

    frames: torch.Tensor
    fresh: Iterator[torch.Tensor] | None = None

    def __len__(self) -> int:
        """Count the frames."""
        return len(self.frames)

    def __getitem__(self, part: slice) -> Stream:
        """Return a part of the stream, whose crops are of itself."""
        return Stream(self.frames[part])

    def check(self) -> None:
        """Refuse what is too short.

        Raises:
            UserError: it is shorter than one crop.
        """
        if len(self) < CROP:
            raise UserError(
                f"prune: found {len(self)} frames in a split, wanted at least {CROP} to distil on or to tune on"
            )

    def crops(self, generator: torch.Generator) -> torch.Tensor:
        """Draw crops (BATCH, CROP, input_dim) for one step."""
        if self.fresh is not None:
            return next(self.fresh)
        starts = torch.randint(len(self) - CROP + 1, (BATCH,), generator=generator).tolist()
        return torch.stack([self.frames[start : start + CROP] for start in starts])


def calibration(folder: Path, recordings: Sequence[Recording], settings: PruneParams) -> Stream:
    """Compute features of the recordings or, where `settings.variations` are wanted, of new mixtures of their voices.

    Those are `variations` times as long in the stream, and others for every step of distillation.
    """
    features = load_features(folder)
    if settings.variations == 0:
        audio = long_enough([recording.samples() for recording in recordings], load_frontend(folder))
        return Stream(torch.cat([features(samples) for samples in audio]))
    voices = augmentation.cut_utterances(recordings)

    def mixture(length: int, rng: np.random.Generator) -> torch.Tensor:
        return features(augmentation.mix(voices, length, rng))

    def crops(rng: np.random.Generator) -> torch.Tensor:
        return torch.stack([mixture(CROP_SAMPLES, rng)[:CROP] for _ in range(BATCH)])

    rng = np.random.default_rng(settings.seed)
    seconds = settings.variations * sum(recording.seconds for recording in recordings)
    count = int(np.ceil(seconds * SAMPLE_RATE / MIXTURE_SAMPLES))
    return Stream(torch.cat([mixture(MIXTURE_SAMPLES, rng) for _ in range(count)]), draw_ahead(crops, settings.seed))


def load_features(folder: Path) -> Features:
    """Load FunASR's front end with the checkpoint's CMVN, for whole recordings."""
    frontend = load_frontend(folder)

    def features(samples: Floats) -> torch.Tensor:
        waveform = torch.from_numpy(samples)[None]
        found: torch.Tensor = frontend(waveform, torch.tensor([waveform.shape[1]]), cache={}, is_final=True)[0][0]
        return found

    return features


def draw_ahead(crops: Crops, seed: int) -> Iterator[torch.Tensor]:
    """Yield crops without end, each draw with a generator of its own; a second thread is one draw ahead."""
    with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,)) as thread:
        ahead = thread.submit(crops, np.random.default_rng([seed, 0]))
        for step in itertools.count(1):
            ready, ahead = ahead, thread.submit(crops, np.random.default_rng([seed, step]))
            yield ready.result()
