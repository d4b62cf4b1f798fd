"""An artifact's accuracy: an exact copy drifts by nothing, a damaged one by as much as it is damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from stages import evaluate as stage
from stages.core import graphs
from stages.core.params import EvaluateParams
from stages.core.parity import LoadedArtifact
from stages.core.statistics import verdict
from stages.corpora import manifest
from stages.models import fsmn_vad
from stages.models.shared.checkpoint import torch_networks
from stages.runtimes import onnxruntime

SETTINGS = EvaluateParams(split="evaluation", resamples=200, confidence=0.95, seed=0)


@pytest.fixture
def reference(tiny_checkpoint: Path, tiny_corpus: Path, tmp_path: Path) -> Path:
    recordings = manifest.read(tiny_corpus, "evaluation")
    model = fsmn_vad.load(tiny_checkpoint)
    graph_set = fsmn_vad.graph_set(model)
    artifact = graph_set, torch_networks(graph_set, fsmn_vad.export_modules(model))
    for mode in fsmn_vad.MODES:
        outcomes = fsmn_vad.score(tiny_checkpoint, artifact, mode, recordings)
        fsmn_vad.write_outcomes(tmp_path, mode, outcomes)
    return tmp_path


def evaluated(model: Path | bytes, export: Path, checkpoint: Path, corpus: Path, reference: Path):
    graph_set = graphs.read(export)
    artifact = (graph_set, {"model": onnxruntime.network(model, graph_set.graphs["model"])})
    recordings = manifest.read(corpus, "evaluation")
    return stage.evaluate(fsmn_vad, checkpoint, recordings, artifact, reference, SETTINGS, processes=1)


def noisy(path: Path, scale: float) -> bytes:
    """The graph with noise of a size relative to each weight's own."""
    model, rng = onnx.load(path), np.random.default_rng(0)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.size:
            noise = scale * values.std() * rng.standard_normal(values.shape)
            tensor.CopyFrom(numpy_helper.from_array((values + noise).astype(np.float32), tensor.name))
    return model.SerializeToString()


def test_the_export_of_a_model_agrees_with_it(tiny_export, tiny_checkpoint, tiny_corpus, reference):
    result = evaluated(tiny_export / "model.onnx", tiny_export, tiny_checkpoint, tiny_corpus, reference)
    for mode in fsmn_vad.MODES:
        agreement = result["metrics"][f"{mode}_frame_agreement"]
        assert (agreement["value"], agreement["drift"]) == (1, 0)
        assert verdict(agreement, 0.0005) == "inconclusive"  # ten recordings without a loss prove no more than 0.31
    assert result["recordings"] == 10
    assert set(result["by_recording"]) == {f"evaluation-{n}" for n in range(10)}


def test_drift_grows_with_the_damage(tiny_export, tiny_checkpoint, tiny_corpus, reference):
    drifts = []
    for scale in (0.0, 0.05, 0.5):
        damaged = noisy(tiny_export / "model.onnx", scale)
        result = evaluated(damaged, tiny_export, tiny_checkpoint, tiny_corpus, reference)
        drifts.append(result["metrics"]["offline_posterior_mean_drift"])
    values = [d["value"] for d in drifts]
    assert values == sorted(values)
    assert values[0] < 1e-6 < values[2]
    assert verdict(drifts[0], 1e-4) == "pass"
    assert verdict(drifts[2], 1e-4) == "fail"


def test_a_clear_case_needs_few_recordings_and_a_close_one_all(
    tiny_export, tiny_checkpoint, tiny_corpus, reference, monkeypatch
):
    """Of an artifact that says of each recording what the reference says: here eight times the same ten."""
    ten = manifest.read(tiny_corpus, "evaluation")
    recordings = [ten[n % 10].model_copy(update={"id": str(n)}) for n in range(80)]
    known = {mode: fsmn_vad.read_outcomes(reference, mode) for mode in fsmn_vad.MODES}
    for mode, outcomes in known.items():
        fsmn_vad.write_outcomes(reference, mode, outcomes * 8)
    monkeypatch.setattr(fsmn_vad, "score", lambda _, __, mode, some: [known[mode][int(r.id) % 10] for r in some])
    artifact: LoadedArtifact = graphs.read(tiny_export), {}

    def scored(limit: float, metric: str = "offline_frame_agreement") -> int:
        limits = {metric: limit}
        found = stage.evaluate(fsmn_vad, tiny_checkpoint, recordings, artifact, reference, SETTINGS, limits=limits)
        assert found["available"] == len(recordings) == 80
        return found["recordings"]

    assert scored(0.5) == 20  # of 20 without a loss, so much is not lost
    assert scored(0.15) == 40
    assert scored(0.0001) == 80  # which no such number of recordings can resolve
    assert scored(2e-4, "offline_output_difference") == 64  # nothing is estimated of a build that is exact


def test_looks_spend_no_more_than_the_risk_there_is():
    assert sum(risk for _, risk in stage.LOOKS) == pytest.approx(1)
    assert [share for share, _ in stage.LOOKS] == sorted(share for share, _ in stage.LOOKS)
