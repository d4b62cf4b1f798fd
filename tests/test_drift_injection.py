"""A known drift, put into a network on purpose, moves the gates' verdicts the way it should; no drift never does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from stages import evaluate
from stages.core.params import EvaluateParams
from stages.core.parity import LoadedArtifact
from stages.core.statistics import verdict
from stages.corpora import manifest, punctuated_text
from stages.models import ct_transformer
from stages.models.shared.checkpoint import torch_networks
from tests.workspace import ROOT

CHECKPOINT = ROOT / "zoo" / "ct_transformer"
MODE = ct_transformer.MODES[0]
LIMITS = {f"{MODE}_f1": 0.1, f"{MODE}_mark_agreement": 0.1}  # forty texts without a loss resolve 0.09
RANKS = {"pass": 0, "inconclusive": 1, "fail": 2}


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[manifest.Recording]:
    folder = tmp_path_factory.mktemp("punctuated")
    punctuated_text.make(3, {"calibration": 1, "tuning": 1, "evaluation": 40}, folder)
    return manifest.read(folder, "evaluation")


def noisy(share: float) -> LoadedArtifact:
    """The miniature with noise on every weight matrix, its deviation a share of the weights' own."""
    torch.manual_seed(0)
    model = ct_transformer.load(CHECKPOINT)
    with torch.no_grad():
        for weight in (p for p in model.parameters() if p.dim() > 1):
            weight.add_(share * weight.std() * torch.randn_like(weight))
    graph_set = ct_transformer.graph_set(model)
    return graph_set, torch_networks(graph_set, ct_transformer.export_modules(model))


@pytest.fixture(scope="module")
def reference(recordings: list[manifest.Recording], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reference")
    ct_transformer.write_outcomes(folder, MODE, ct_transformer.score(CHECKPOINT, noisy(0), MODE, recordings))
    return folder


def worst(
    recordings: list[manifest.Recording], reference: Path, artifact: LoadedArtifact, seed: int = 0
) -> tuple[str, float]:
    """The worst verdict of the gate `quantized`, and the loss of agreement."""
    settings = EvaluateParams(split="evaluation", resamples=1000, confidence=0.95, seed=seed)
    found = evaluate.evaluate(ct_transformer, CHECKPOINT, recordings, artifact, reference, settings, processes=1)[
        "metrics"
    ]
    verdicts = [verdict(found[name], limit) for name, limit in LIMITS.items()]
    return max(verdicts, key=RANKS.__getitem__), -found[f"{MODE}_mark_agreement"]["drift"]


def test_verdicts_follow_noise_of_growing_size(recordings, reference):
    shares = (0.0, 0.001, 0.3, 1.0)
    verdicts, losses = zip(*(worst(recordings, reference, noisy(share)) for share in shares), strict=True)
    assert verdicts[0] == "pass"
    assert verdicts[-1] == "fail"
    assert [RANKS[v] for v in verdicts] == sorted(RANKS[v] for v in verdicts)
    assert list(losses) == sorted(losses)
    assert losses[0] == 0 < losses[-1]


def test_an_identical_network_never_fails_whatever_the_seed(recordings, reference, monkeypatch):
    outcomes = ct_transformer.read_outcomes(reference, MODE)
    known = {recording.id: outcome for recording, outcome in zip(recordings, outcomes, strict=True)}
    monkeypatch.setattr(ct_transformer, "score", lambda *given: [known[recording.id] for recording in given[-1]])
    assert {worst(recordings, reference, noisy(0), seed)[0] for seed in range(20)} == {"pass"}
