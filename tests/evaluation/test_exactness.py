"""Two networks that should be the same are held to each other output by output, on what real recordings feed them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from stages.core import graphs
from stages.core.files import write_json
from stages.core.graphs import Feeds
from stages.core.parity import LoadedArtifact
from stages.core.statistics import verdict
from stages.corpora import manifest
from stages.corpora.manifest import Recording
from stages.evaluation import exactness
from stages.models import fsmn_vad
from stages.models.shared.checkpoint import torch_artifact
from stages.runtimes import onnxruntime


def measured(checkpoint: Path, export: Path, corpus: Path, noise: float) -> dict[str, Any]:
    graph_set = graphs.read(export)
    network, rng = onnxruntime.load(export, graph_set)["model"], np.random.default_rng(0)

    def run(feeds: Feeds) -> Feeds:
        outputs = network(feeds)
        return outputs | {"logits": outputs["logits"] + noise * rng.standard_normal(outputs["logits"].shape)}

    artifact: LoadedArtifact = graph_set, {"model": run}
    exact = torch_artifact(fsmn_vad, fsmn_vad.load(checkpoint))
    return exactness.measure(fsmn_vad, checkpoint, exact, artifact, manifest.read(corpus, "evaluation"))


def test_an_export_differs_by_rounding_and_risks_no_decision(tiny_checkpoint, tiny_export, tiny_corpus):
    for name, metric in measured(tiny_checkpoint, tiny_export, tiny_corpus, noise=0).items():
        assert verdict(metric, 2e-4 if name.endswith("difference") else 0.0005) == "pass"


def test_what_is_off_by_more_than_rounding_is_seen_where_no_count_changes(tiny_checkpoint, tiny_export, tiny_corpus):
    found = measured(tiny_checkpoint, tiny_export, tiny_corpus, noise=1e-3)
    assert verdict(found["offline_output_difference"], 2e-4) == "fail"
    assert found["streaming_decisions_at_risk"]["value"] > 0


def test_outputs_that_are_not_finite_fail_and_can_be_written_down(
    tiny_checkpoint, tiny_export, tiny_corpus, tmp_path: Path
):
    found = measured(tiny_checkpoint, tiny_export, tiny_corpus, noise=math.nan)
    assert verdict(found["offline_output_difference"], 2e-4) == "fail"
    write_json(tmp_path / "accuracy.json", found)


def test_the_longest_recording_is_compared_and_others_as_time_allows():
    def lengths(*seconds: float) -> list[float]:
        audio = [{"wav": "a.wav", "seconds": s, "sha256": "0" * 64} if s else {"text": "a"} for s in seconds]
        recordings = [Recording(folder=Path(), id=str(n), **line) for n, line in enumerate(audio)]
        return [recordings[place].seconds for place in exactness.choose(recordings)]

    usual = [2.0] * 10
    assert lengths(100, 90, 600, 3) == [100, 90, 600, 3]
    assert lengths(100, 3, 120, 90, *usual) == [100, 3, 120, *[2.0] * 8]
    assert lengths(*[2.0] * 100) == [2.0] * 64
    assert lengths(*[0.0] * 100) == [0.0] * 64  # texts


def test_long_recordings_are_enough_for_a_verdict():
    """Ten of them, whatever they take: fewer prove nothing, and no exact build could pass."""
    audio = {"wav": "a.wav", "sha256": "0" * 64}
    recordings = [Recording(folder=Path(), id=str(n), seconds=60 + n, **audio) for n in range(500)]
    assert exactness.choose(recordings) == [0, 1, 2, 3, 4, 5, 6, 7, 8, 499]
