"""The family loads only what is safe and whole, and measures what the field measures."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from stages.core.errors import UserError
from stages.corpora import manifest
from stages.models import fsmn_vad
from stages.models.fsmn_vad.metrics import Outcome, segment_f1
from stages.models.fsmn_vad.scoring import load_detector
from stages.models.shared.checkpoint import torch_networks
from tests import workspace
from tests.conftest import CONFIG


@pytest.fixture
def checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))


class RunsCode:
    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self):
        return (Path.touch, (self.place,))


def test_a_pickle_that_runs_code_is_refused_and_does_not_run(checkpoint: Path, tmp_path: Path):
    with (checkpoint / "model.pt").open("wb") as f:
        pickle.dump(RunsCode(tmp_path / "ran"), f, protocol=2)
    with pytest.raises(UserError, match=r"a checkpoint must not run code|not a whole PyTorch checkpoint"):
        fsmn_vad.load(checkpoint)
    torch.save(RunsCode(tmp_path / "ran"), checkpoint / "model.pt")
    with pytest.raises(UserError, match="a checkpoint must not run code"):
        fsmn_vad.load(checkpoint)
    assert not (tmp_path / "ran").exists()


def test_a_truncated_checkpoint_is_named(checkpoint: Path):
    whole = (checkpoint / "model.pt").read_bytes()
    (checkpoint / "model.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"model\.pt is not a whole PyTorch checkpoint"):
        fsmn_vad.load(checkpoint)


@pytest.mark.parametrize("key", ["model", "model_conf", "encoder", "encoder_conf", "frontend_conf"])
def test_a_config_without_a_section_names_it(checkpoint: Path, key: str):
    (checkpoint / "config.yaml").write_text(yaml.safe_dump({k: v for k, v in CONFIG.items() if k != key}))
    with pytest.raises(UserError, match=rf"config\.yaml: no {key}; the family fsmn_vad needs it"):
        fsmn_vad.load(checkpoint)


def test_weights_of_another_shape_are_refused(checkpoint: Path):
    config = {**CONFIG, "encoder_conf": {**CONFIG["encoder_conf"], "proj_dim": 8}}
    (checkpoint / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(UserError, match=r"the weights do not fit config\.yaml"):
        fsmn_vad.load(checkpoint)


def test_streaming_gives_the_posteriors_of_the_whole_file(tiny_checkpoint: Path, tiny_corpus: Path):
    model = fsmn_vad.load(tiny_checkpoint)
    graph_set = fsmn_vad.graph_set(model)
    artifact = graph_set, torch_networks(graph_set, fsmn_vad.export_modules(model))
    recordings = manifest.read(tiny_corpus, "evaluation")[:2]
    offline, streaming = (fsmn_vad.score(tiny_checkpoint, artifact, mode, recordings) for mode in fsmn_vad.MODES)
    for a, b in zip(offline, streaming, strict=True):
        np.testing.assert_allclose(a.speech, b.speech, atol=1e-5)


def test_events_as_audio_arrives_are_the_segments_of_a_stream(tiny_checkpoint: Path, tiny_corpus: Path):
    recordings = manifest.read(tiny_corpus, "evaluation")
    model = fsmn_vad.load(tiny_checkpoint)
    graph_set = fsmn_vad.graph_set(model)
    artifact = graph_set, torch_networks(graph_set, fsmn_vad.export_modules(model))
    listen = fsmn_vad.load_streaming_detector(tiny_checkpoint, artifact)
    for recording, outcome in zip(
        recordings, fsmn_vad.score(tiny_checkpoint, artifact, "streaming", recordings), strict=True
    ):
        heard = list(listen(recording.samples()))
        assert [milliseconds for milliseconds, _ in heard] == list(range(200, 3001, 200))
        assert fsmn_vad.scoring.join_events(event for _, events in heard for event in events) == outcome.segments


@pytest.mark.parametrize(
    ("events", "segments"),
    [
        pytest.param([[10, 90]], [[10, 90]], id="whole"),
        pytest.param([[10, -1], [-1, 90], [120, -1], [-1, 150]], [[10, 90], [120, 150]], id="by their edges"),
        pytest.param([[10, -1]], [], id="an end that never came"),
        pytest.param([[-1, 90]], [], id="a start that never came"),
    ],
)
def test_events_join_to_segments(events, segments):
    assert fsmn_vad.scoring.join_events(events) == segments


def test_a_perfect_detector_measures_as_one(tiny_checkpoint: Path, tiny_corpus: Path):
    recording = manifest.read(tiny_corpus, "evaluation")[0]
    truth = fsmn_vad.metrics._truth_frames(recording, 300)
    perfect = Outcome(truth.astype(np.float32), [[1000, 2000]])
    (counts,) = fsmn_vad.measure(tiny_checkpoint, [recording], [perfect], [perfect])
    assert counts.keys() == fsmn_vad.METRICS.keys()
    ratios = {name: a / b for name, (a, b) in counts.items()}
    assert ratios["frame_agreement"] == ratios["truth_f1"] == ratios["segment_f1_50ms"] == 1
    assert ratios["truth_miss_rate"] == ratios["truth_false_alarm_rate"] == ratios["posterior_max_drift"] == 0
    deaf = Outcome(np.zeros(300, np.float32), [])
    (counts,) = fsmn_vad.measure(tiny_checkpoint, [recording], [perfect], [deaf])
    assert counts["truth_miss_rate"] == (100, 100)
    assert counts["segment_f1_200ms"] == (0, 1)
    assert counts["posterior_mean_drift"] == (100, 300)


@pytest.mark.parametrize(
    ("found", "expected", "tolerance", "wanted"),
    [
        pytest.param([[0, 100]], [[40, 140]], 50, (2, 2), id="within"),
        pytest.param([[0, 100]], [[40, 160]], 50, (0, 2), id="one-edge-off"),
        pytest.param([[0, 100], [0, 100]], [[0, 100]], 50, (2, 3), id="used-once"),
        pytest.param([[0, 100], [200, 300]], [[200, 300]], 50, (2, 3), id="extra"),
        pytest.param([], [], 50, (0, 0), id="nothing"),
    ],
)
def test_segments_match_by_both_edges(found, expected, tolerance, wanted):
    assert segment_f1(found, expected, tolerance) == wanted


def test_outcomes_are_read_back_as_written(tmp_path: Path):
    outcomes = [Outcome(np.linspace(0, 1, n, dtype=np.float32), [[0, n]]) for n in (3, 5)]
    fsmn_vad.write_outcomes(tmp_path, "offline", outcomes)
    for a, b in zip(outcomes, fsmn_vad.read_outcomes(tmp_path, "offline"), strict=True):
        np.testing.assert_array_equal(a.speech, b.speech)
        assert a.segments == b.segments


@pytest.mark.parametrize("mode", fsmn_vad.MODES)
@pytest.mark.parametrize("samples", [0, 1, 384, 399, 400])
def test_audio_of_less_than_a_window_has_no_segments(tiny_checkpoint: Path, mode: str, samples: int):
    model = fsmn_vad.load(tiny_checkpoint)
    graphs = fsmn_vad.graph_set(model)
    artifact = (graphs, torch_networks(graphs, fsmn_vad.export_modules(model)))
    found = load_detector(tiny_checkpoint, artifact, mode)(np.full(samples, 0.1, np.float32))
    assert found.segments == []
    assert len(found.speech) == (samples >= 400)
    line = manifest.Recording(
        folder=Path(), id="a", text="a", seconds=1, wav="a.wav", sha256="0" * 64, segments=[(0, 1)]
    )
    assert fsmn_vad.measure(tiny_checkpoint, [line], [found], [found])[0]["frame_agreement"] == (len(found.speech),) * 2


def test_data_without_segments_measures_nothing(tiny_checkpoint: Path, tiny_corpus: Path):
    lines = [line.model_copy(update={"segments": []}) for line in manifest.read(tiny_corpus, "evaluation")]
    outcomes = [Outcome(np.zeros(300, np.float32), [])] * len(lines)
    with pytest.raises(UserError, match="found no segments in any line, wanted those of speech"):
        fsmn_vad.measure(tiny_checkpoint, lines, outcomes, outcomes)


def test_there_is_nothing_to_prune_on_in_recordings_of_a_moment(tiny_checkpoint: Path, tmp_path: Path):
    digest = manifest.write_wav(tmp_path / "a.wav", np.zeros(399))
    recording = manifest.Recording(folder=tmp_path, id="a", wav="a.wav", seconds=399 / 16_000, sha256=digest)
    settings = workspace.PRUNE.model_copy(update={"variations": 0})
    with pytest.raises(UserError, match="found 2 recordings, all under 25 ms"):
        fsmn_vad.calibration(tiny_checkpoint, [recording] * 2, settings)
