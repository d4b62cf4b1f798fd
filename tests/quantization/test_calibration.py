"""What is recorded is what the pipeline fed each graph, in every mode, thinned out evenly."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from stages.core import graphs
from stages.core.graphs import example_feeds
from stages.quantization.calibration import record_feeds


def test_inputs_of_every_mode_spread_evenly(tiny_export: Path):
    graph = graphs.read(tiny_export).graphs["model"]

    def score(_checkpoint, artifact, mode, recordings):
        feeds = example_feeds(graph, {"feats_length": 7}, seed=0)
        for number in recordings:
            feeds["speech"][:] = number + (100 if mode == "streaming" else 0)  # one buffer, used again
            assert artifact[1]["model"](feeds)["logits"].shape[1] == 7

    recordings: list[Any] = list(range(10))  # stand-ins
    family: Any = SimpleNamespace(MODES=("offline", "streaming"), score=score)
    found = record_feeds(family, tiny_export, tiny_export, recordings, 4)
    assert list(found) == ["model"]
    assert [float(feeds["speech"].flat[0]) for feeds in found["model"]] == [0, 6, 103, 109]
    everything = record_feeds(family, tiny_export, tiny_export, recordings[1:2], 64)["model"]
    assert np.unique([feeds["speech"] for feeds in everything]).tolist() == [1, 101]
