"""FunASR's emotion recognizer with only its network swapped."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stages.core.errors import UserError
from stages.core.parity import LoadedArtifact, Network
from stages.corpora.manifest import Recording
from stages.models.emotion2vec.metrics import MODES, Floats, Outcome
from stages.models.emotion2vec.network import build, load_tokenizer, read_config
from stages.models.shared import checkpoint
from stages.models.shared.each import score_each


class _Head(torch.nn.Module):
    """Takes the places of FunASR's network and its last layer: runs the graph once and gives each its output."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def extract_features(self, source: torch.Tensor, **_: Any) -> dict[str, torch.Tensor]:
        """Compute frame embeddings (1, frames, embed_dim) of a normalized waveform (1, samples)."""
        self.outputs = self.network({"source": source.numpy()})
        return {"x": torch.from_numpy(self.outputs["frame_embeddings"])}

    def forward(self, _: torch.Tensor) -> torch.Tensor:
        """Return logits (1, labels) of the last waveform of `extract_features`, in memory of their own."""
        return torch.from_numpy(self.outputs["logits"].copy())


def score(folder: Path, artifact: LoadedArtifact, mode: str, recordings: Iterable[Recording]) -> list[Outcome]:
    """Run FunASR's recognizer over the recordings with the artifact's network in the place of its own.

    mode: FunASR's granularity, `utterance`.

    Raises:
        UserError: a recording is shorter than what the network makes one frame of.
    """
    return score_each(load_classifier(folder, artifact, mode), recordings)


def load_classifier(folder: Path, artifact: LoadedArtifact, mode: str = MODES[0]) -> Callable[[Floats], Outcome]:
    """Load FunASR's recognizer as a function of audio float32 (samples,), as `score` runs it.

    It raises a UserError for audio that is shorter than what the network makes one frame of.
    """
    torch.set_num_threads(1)
    model, tokenizer = checkpoint.described(build, read_config(folder), folder), load_tokenizer(folder)
    head = _Head(artifact[1]["model"])
    model.proj, model.extract_features = head, head.extract_features
    shortest = artifact[0].graphs["model"].axes["samples"].min

    def classify(samples: Floats) -> Outcome:
        if len(samples) < shortest:
            raise UserError(f"found {len(samples)} samples, wanted at least {shortest}, one frame")
        with torch.inference_mode():
            (result,), _ = model.inference(
                [torch.from_numpy(samples)], key=[""], tokenizer=tokenizer, device="cpu", granularity=mode
            )
        return Outcome(np.asarray(result["scores"], np.float32), np.asarray(result["feats"], np.float32))

    return classify
