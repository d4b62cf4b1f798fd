"""NaN in one recording is counted as one, spoils no other and crashes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages import evaluate as stage
from stages import reference
from stages.core import graphs
from stages.core.errors import UserError
from stages.core.graphs import Feeds
from stages.core.params import EvaluateParams
from stages.core.parity import LoadedArtifact
from stages.corpora import manifest
from stages.models import fsmn_vad
from stages.models.protocols import Family
from stages.models.shared.checkpoint import torch_artifact
from stages.runtimes import onnxruntime

SETTINGS = EvaluateParams(split="evaluation", resamples=100, confidence=0.95, seed=0)
FAMILY: Family[Any] = fsmn_vad


def spoilt(artifact: LoadedArtifact, value: float) -> LoadedArtifact:
    """The artifact with a number that is not finite in what it gives of the first input that it hears."""
    graph_set, networks = artifact
    first: list[Feeds] = []

    def run(feeds: Feeds) -> Feeds:
        first.append(feeds)
        outputs = networks["model"](feeds)
        if np.array_equal(feeds["speech"], first[0]["speech"]):
            outputs = outputs | {"logits": np.full_like(outputs["logits"], value)}
        return outputs

    return graph_set, {"model": run}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_recordings_with_numbers_that_are_none_are_counted(
    value: float, tiny_export: Path, tiny_checkpoint: Path, tiny_corpus: Path, tmp_path: Path
):
    recordings = manifest.read(tiny_corpus, "evaluation")[:4]
    graph_set = graphs.read(tiny_export)
    artifact: LoadedArtifact = graph_set, onnxruntime.load(tiny_export, graph_set)
    reference.write_reference(FAMILY, tiny_checkpoint, recordings, tmp_path)
    broken = spoilt(artifact, value)
    result = stage.evaluate(FAMILY, tiny_checkpoint, recordings, broken, tmp_path, SETTINGS, processes=1)
    assert result["not_finite"] == 1
    assert all(np.isfinite(m["value"]) for m in result["metrics"].values() if m["value"] is not None)


def test_an_fp32_model_of_such_numbers_is_refused_by_the_recording(
    tiny_checkpoint: Path, tiny_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    recordings = manifest.read(tiny_corpus, "evaluation")
    broken = spoilt(torch_artifact(FAMILY, FAMILY.load(tiny_checkpoint)), np.nan)
    monkeypatch.setattr(reference, "torch_artifact", lambda *_: broken)
    with pytest.raises(UserError, match=r"NaN or infinite numbers in \d+ of 10 recordings, first in evaluation-"):
        reference.write_reference(FAMILY, tiny_checkpoint, recordings, tmp_path)
