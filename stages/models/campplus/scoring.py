"""FunASR's speaker embedding with only its network swapped."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from stages.core.errors import UserError
from stages.core.parity import LoadedArtifact
from stages.corpora.manifest import SAMPLE_RATE, Recording
from stages.models.campplus.metrics import Outcome
from stages.models.campplus.network import FRAMES_PER_SECOND, SHORTEST, build, read_config
from stages.models.shared import checkpoint
from stages.models.shared.each import score_each

WINDOW = SAMPLE_RATE // 40  # samples of a frame: 25 ms
LEAST_SAMPLES = WINDOW + (SHORTEST - 1) * SAMPLE_RATE // FRAMES_PER_SECOND


def features(samples: torch.Tensor) -> torch.Tensor:
    """Compute what FunASR feeds the network, (1, frames, 80) without their mean over time, of audio (samples,)."""
    with checkpoint.importing_funasr():
        from funasr.models.campplus.utils import extract_feature

    found: torch.Tensor = extract_feature([samples])[0]
    return found


def score(folder: Path, artifact: LoadedArtifact, mode: str, recordings: Iterable[Recording]) -> list[Outcome]:
    """Run FunASR's speaker embedding over the recordings with the artifact's network in the place of its own.

    mode: `utterance`, one embedding of each recording.

    Raises:
        UserError: a recording is shorter than what the network has an embedding for.
    """
    del mode
    return score_each(load_embedder(folder, artifact), recordings)


def load_embedder(folder: Path, artifact: LoadedArtifact) -> Callable[[NDArray[np.float32]], Outcome]:
    """Load FunASR's speaker embedding as a function of audio float32 (samples,), as `score` runs it.

    It raises a UserError for audio that is shorter than what the network has an embedding for.
    """
    torch.set_num_threads(1)
    model, network = checkpoint.described(build, read_config(folder), folder), artifact[1]["model"]
    model.forward = lambda x: torch.from_numpy(network({"x": x.numpy()})["embedding"])

    def embed(samples: NDArray[np.float32]) -> Outcome:
        if len(samples) < LEAST_SAMPLES:
            raise UserError(f"found {len(samples)} samples, wanted at least {LEAST_SAMPLES}")
        with torch.inference_mode():
            (result,), _ = model.inference([torch.from_numpy(samples)], key=[""], device="cpu")
        return Outcome(result["spk_embedding"][0].numpy().copy())

    return embed
