"""A speaker embedding around any artifact is FunASR's own, at every length, and is narrowed inside its blocks."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray

from stages.core import graphs
from stages.core.errors import UserError
from stages.core.parity import LoadedArtifact
from stages.corpora import manifest, speaker_trials
from stages.corpora.manifest import SAMPLE_RATE, Recording
from stages.export import export_variant
from stages.models import campplus
from stages.models.campplus.scoring import features
from stages.models.shared.checkpoint import importing_funasr, save, torch_artifact
from stages.runtimes import onnxruntime
from tests import consumers, sherpa, workspace
from tests.workspace import ROOT
from zoo import replicas

MINIATURE = ROOT / "zoo/campplus"
PRUNE = workspace.PRUNE.model_copy(update={"ratio_of": "prunable"})
STEPS = dict.fromkeys(("head", "block1", "block2", "block3"), PRUNE.round_to)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in the layout of the hub, of little width: FunASR has no key for depth."""
    folder = tmp_path_factory.mktemp("campplus") / "checkpoint"
    replicas.make("campplus_zh_common", folder, tiny=True)
    return folder


@pytest.fixture
def own(checkpoint: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(checkpoint, tmp_path / "checkpoint"))


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[Recording]:
    """Tones in noise of 2.1 to 3 s."""
    folder = tmp_path_factory.mktemp("tones")
    rng, lines = np.random.default_rng(0), []
    for number in range(10):
        t = np.arange(int(SAMPLE_RATE * (2.1 + 0.1 * number))) / SAMPLE_RATE
        samples = 0.2 * np.sin(2 * np.pi * 100 * (number + 1) * t) + 0.01 * number * rng.standard_normal(len(t))
        lines.append(manifest.record(folder, f"{number}", samples, speaker=f"{number // 2}"))
    manifest.write(folder, "evaluation", lines)
    return manifest.read(folder, "evaluation")


@pytest.fixture(scope="module")
def voices(tmp_path_factory: pytest.TempPathFactory) -> list[Recording]:
    """Six recordings of each of six voices."""
    folder = tmp_path_factory.mktemp("voices")
    speaker_trials.make(5, {"evaluation": 36}, folder)
    return manifest.read(folder, "evaluation")


@contextmanager
def few_layers() -> Iterator[None]:
    """Let FunASR build dense blocks of two layers, of which it has no key: exporting all 52 takes ten seconds."""
    with importing_funasr():
        from funasr.models.campplus import model
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "zip", lambda counts, *others: zip([2] * len(counts), *others, strict=True), raising=False)
        yield


@pytest.fixture(scope="module")
def shallow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniature's checkpoint without all but the first two layers of each dense block, and statistics of that."""
    folder = tmp_path_factory.mktemp("shallow") / "checkpoint"
    config, weights = campplus.read_config(MINIATURE), campplus.load(MINIATURE).state_dict()
    with few_layers():
        model = campplus.build(config)
    kept = {name: weights[name][tuple(map(slice, own.shape))] for name, own in model.state_dict().items()}
    model.load_state_dict(kept)
    torch.manual_seed(0)
    replicas.gather_statistics(model)
    save(model, config, MINIATURE, folder)
    return folder


@pytest.fixture(scope="module")
def release(shallow: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shallow network's plain export, with what sherpa-onnx reads."""
    folder = tmp_path_factory.mktemp("export")
    with few_layers():
        export_variant(campplus, shallow, folder, opset=18, tolerance=5e-5, metadata=campplus.metadata(shallow))
    return folder


@pytest.fixture(scope="module")
def exported(release: Path) -> LoadedArtifact:
    graph_set = graphs.read(release)
    return graph_set, onnxruntime.load(release, graph_set)


# Loading


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        pytest.param({"feat_dim": 40}, r"model_conf\.feat_dim: found 40, wanted 80", id="features"),
        pytest.param({"output_level": "frame"}, r"model_conf\.output_level: found 'frame'", id="frames"),
        pytest.param({"config_str": "batchnorm-prelu"}, r"model_conf\.config_str: found 'batchnorm-prelu'", id="norm"),
        pytest.param({"growth_rate": 1, "bn_size": 1}, r"bn_size: found 1, wanted 2 or more", id="no context"),
        pytest.param({"kept_channels": {"block4": 3}}, r"kept_channels\.block4", id="no such block"),
        pytest.param({"growth_rate": 8}, r"the weights do not fit config\.yaml", id="shape"),
    ],
)
def test_a_config_that_cannot_be_names_the_key(own: Path, edit: dict[str, Any], message: str):
    config = yaml.safe_load((own / "config.yaml").read_text(encoding="utf-8"))
    config["model_conf"] |= edit
    (own / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    with pytest.raises(UserError, match=message):
        campplus.load(own)


# Scoring and export


def test_a_swapped_network_gives_funasrs_own_embedding(checkpoint: Path, recordings: list[Recording]):
    model = campplus.load(checkpoint)
    outcomes = campplus.score(checkpoint, torch_artifact(campplus, campplus.load(checkpoint)), "utterance", recordings)
    for recording, outcome in zip(recordings, outcomes, strict=True):
        with torch.inference_mode():
            (own,), _ = model.inference([torch.from_numpy(recording.samples())], key=["a"], device="cpu")
        np.testing.assert_allclose(outcome.embedding, own["spk_embedding"][0], atol=1e-6)


def test_the_graph_is_the_network_at_every_length(exported: LoadedArtifact, shallow: Path):
    """Of 100 steps, two frames each, is a segment that a layer takes the mean of: at its edges too."""
    with few_layers():
        network, reference = exported[1]["model"], campplus.load(shallow)
    for frames in (3, 4, 5, 99, 100, 199, 200, 201, 202, 203, 399, 401, 1000):
        x = np.random.default_rng(frames).standard_normal((1, frames, 80)).astype(np.float32)
        with torch.inference_mode():
            wanted = reference(torch.from_numpy(x)).numpy()
        np.testing.assert_allclose(network({"x": x})["embedding"], wanted, atol=2e-4 * np.abs(wanted).max())


def test_a_batch_is_its_recordings_one_by_one_and_padding_is_what_funasr_makes_of_it(
    exported: LoadedArtifact, shallow: Path, recordings: list[Recording]
):
    network = exported[1]["model"]
    found = [features(torch.from_numpy(r.samples())).numpy() for r in recordings[:3]]
    shortest = min(x.shape[1] for x in found)
    cut = [x[:, :shortest] for x in found]
    alone = np.concatenate([network({"x": x})["embedding"] for x in cut])
    np.testing.assert_allclose(network({"x": np.concatenate(cut)})["embedding"], alone, atol=1e-5 * np.abs(alone).max())
    padded = np.concatenate([np.pad(x, ((0, 0), (0, 300 - x.shape[1]), (0, 0))) for x in found])
    with few_layers(), torch.inference_mode():
        wanted = campplus.load(shallow)(torch.from_numpy(padded)).numpy()
    np.testing.assert_allclose(network({"x": padded})["embedding"], wanted, atol=2e-4 * np.abs(wanted).max())


def test_the_shortest_recording_has_an_embedding_and_a_shorter_one_is_named(checkpoint: Path, tmp_path: Path):
    artifact = torch_artifact(campplus, campplus.load(checkpoint))
    long_enough, too_short = (moment(tmp_path, samples) for samples in (720, 719))
    (outcome,) = campplus.score(checkpoint, artifact, "utterance", [long_enough])
    assert np.isfinite(outcome.embedding).all()
    with pytest.raises(UserError, match=r"719\.wav: found 719 samples, wanted at least 720"):
        campplus.score(checkpoint, artifact, "utterance", [too_short])


def moment(folder: Path, samples: int) -> Recording:
    noise = 0.1 * np.random.default_rng(0).standard_normal(samples)
    return Recording(folder=folder, **manifest.record(folder, f"{samples}", noise).model_dump())


def test_outcomes_are_read_back_as_written(tmp_path: Path):
    outcomes = [campplus.Outcome(np.full(4, n, np.float32)) for n in (3, 5)]
    campplus.write_outcomes(tmp_path, "utterance", outcomes)
    for a, b in zip(outcomes, campplus.read_outcomes(tmp_path, "utterance"), strict=True):
        np.testing.assert_array_equal(a.embedding, b.embedding)


# Pruning


def parameters(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("width", [{"head": 5}, {"block1": 7, "block3": 4}, {"block2": 2}], ids=str)
def test_parameters_are_counted_as_funasr_builds_them(checkpoint: Path, width: dict[str, int]):
    config = campplus.read_config(checkpoint)
    small = campplus.build(campplus.with_widths(config, width))
    assert campplus.counter(config)(width) == parameters(small) < campplus.counter(config)({})
    assert campplus.widths(small) == campplus.widths(campplus.build(config)) | width


def test_a_pruned_model_has_as_much_less_as_was_asked_and_loads_from_its_checkpoint(
    checkpoint: Path, voices: list[Recording], tmp_path: Path
):
    model, config = campplus.load(checkpoint), campplus.read_config(checkpoint)
    crops = campplus.calibration(checkpoint, voices[:8], PRUNE)
    small_config = campplus.narrowed(config, 0.15, STEPS)
    small, refit = campplus.cut(model, small_config, crops, PRUNE.criterion, PRUNE.refit_damping)
    assert 1 - parameters(small) / parameters(model) == pytest.approx(0.15, abs=0.01)
    assert campplus.multiplications(small) < campplus.multiplications(model)
    loss = campplus.distillation(small, model, crops)
    with torch.no_grad():
        far = loss(torch.Generator().manual_seed(0))
        refit()
        assert loss(torch.Generator().manual_seed(0)) < far
    save(small, small_config, checkpoint, tmp_path / "pruned")
    again = campplus.load(tmp_path / "pruned")
    with torch.no_grad():
        assert torch.equal(again(crops[:2]), small(crops[:2]))


def test_channels_that_do_nothing_go_first_and_are_not_missed(checkpoint: Path, voices: list[Recording]):
    model, config = campplus.load(checkpoint), campplus.read_config(checkpoint)
    with torch.no_grad():
        for layer in model.xvector.block2.children():
            layer.cam_layer.linear_local.weight[:, ::2] = 0
            layer.cam_layer.linear1.weight[:, ::2] = 0
            layer.cam_layer.linear2.weight[:, ::2] = 0
    crops = campplus.calibration(checkpoint, voices[:8], PRUNE)
    half = {"block2": campplus.widths(model)["block2"] // 2}
    small, refit = campplus.cut(model, campplus.with_widths(config, half), crops, "least_squares", 1e-7)
    assert max(refit().values()) < 0.05
    with torch.no_grad():
        assert torch.nn.functional.cosine_similarity(small(crops), model(crops)).min() > 0.9999


def test_a_criterion_of_posteriors_is_refused(checkpoint: Path):
    model, config = campplus.load(checkpoint), campplus.read_config(checkpoint)
    with pytest.raises(UserError, match="taylor, which needs posteriors"):
        campplus.cut(model, campplus.with_widths(config, {"head": 8}), torch.zeros(16, 200, 80), "taylor", 1e-4)


def test_too_little_to_calibrate_on_is_named(checkpoint: Path, recordings: list[Recording]):
    with pytest.raises(UserError, match=r"found 3 crops of 2 s to calibrate on, wanted at least 16"):
        campplus.calibration(checkpoint, recordings[:2], PRUNE)


# The miniature, and who else runs it


def unit(vectors: Sequence[Any]) -> NDArray[np.float64]:
    stacked = np.stack(vectors).astype(np.float64)
    return np.asarray(stacked / np.linalg.norm(stacked, axis=1, keepdims=True))


@pytest.fixture(scope="module")
def miniature() -> LoadedArtifact:
    return torch_artifact(campplus, campplus.load(MINIATURE))


def test_the_miniature_tells_voices_apart_that_it_never_heard(miniature: LoadedArtifact, voices: list[Recording]):
    outcomes = campplus.score(MINIATURE, miniature, "utterance", voices)
    counts = campplus.measure(MINIATURE, voices, outcomes, outcomes)
    above, below = (np.array([of["eer"][i] for of in counts]) for i in (0, 1))
    assert campplus.METRICS["eer"].pool(above, below) < 0.3


def test_funasrs_auto_model_gives_the_same_embedding(miniature: LoadedArtifact, voices: list[Recording]):
    model = consumers.auto_model(MINIATURE)
    wanted = [consumers.embedding(model, recording) for recording in voices[:4]]
    outcomes = campplus.score(MINIATURE, miniature, "utterance", voices[:4])
    np.testing.assert_allclose([outcome.embedding for outcome in outcomes], wanted, rtol=1e-3, atol=1e-3)


def test_sherpa_runs_the_graph_on_filters_of_its_own(
    shallow: Path, release: Path, exported: LoadedArtifact, voices: list[Recording]
):
    """They end 400 Hz lower and its frames begin earlier: with such features ours is its embedding, else not."""
    with importing_funasr():
        from funasr.utils import fbank

    some = voices[::6]
    found = unit(sherpa.run("campplus", release, [str(recording.path) for recording in some]))
    audio = [torch.from_numpy(recording.samples())[None] for recording in some]
    theirs = [fbank.fbank(a, num_mel_bins=80, high_freq=-400.0, snip_edges=False) for a in audio]
    network = exported[1]["model"]
    alike = unit([network({"x": (x - x.mean(dim=0))[None].numpy()})["embedding"][0] for x in theirs])
    ours = unit([outcome.embedding for outcome in campplus.score(shallow, exported, "utterance", some)])
    assert (alike * found).sum(axis=1).mean() > 1 - 1e-6
    assert (ours * found).sum(axis=1).mean() < 1 - 1e-4
    assert ((ours @ found.T).argmax(axis=1) == np.arange(len(some))).all()
