"""FunASR's emotion recognizer with only its network swapped."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stages.core.errors import UserError
from stages.core.parity import LoadedArtifact, Network
from stages.corpora.manifest import Recording
from stages.models.emotion2vec.metrics import Outcome
from stages.models.emotion2vec.network import load, load_tokenizer


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
    torch.set_num_threads(1)
    model, tokenizer = load(folder), load_tokenizer(folder)
    head = _Head(artifact[1]["model"])
    model.proj, model.extract_features = head, head.extract_features
    shortest, outcomes = artifact[0].graphs["model"].axes["samples"].min, []
    for recording in recordings:
        samples = torch.from_numpy(recording.samples())
        if len(samples) < shortest:
            raise UserError(f"{recording.path}: found {len(samples)} samples, wanted at least {shortest}, one frame")
        with torch.inference_mode():
            (result,), _ = model.inference(
                [samples], key=[recording.id], tokenizer=tokenizer, device="cpu", granularity=mode
            )
        outcomes.append(Outcome(np.asarray(result["scores"], np.float32), np.asarray(result["feats"], np.float32)))
    return outcomes
