"""A recognizer around any artifact says what FunASR's own does, and is measured as the field measures."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from stages.core import graphs
from stages.core.errors import UserError
from stages.corpora import emotional_prosody, manifest
from stages.corpora.manifest import SAMPLE_RATE, Line, Recording
from stages.export import export_variant
from stages.models import emotion2vec
from stages.models.emotion2vec import Outcome
from stages.models.shared.checkpoint import save, torch_networks
from stages.runtimes import onnxruntime
from tests import workspace

MINIATURE = Path(__file__).parents[3] / "zoo/emotion2vec"
PRUNE = workspace.PRUNE.model_copy(update={"ratio": 0.2})


def tiny_config() -> dict[str, Any]:
    """The miniature's configuration, narrower still."""
    config = yaml.safe_load((MINIATURE / "config.yaml").read_text(encoding="utf-8"))
    config["model_conf"] |= {"depth": 1, "embed_dim": 16, "num_heads": 2, "mlp_ratio": 4.0}
    config["model_conf"]["modalities"]["audio"] |= {
        "num_alibi_heads": 2,
        "feature_encoder_spec": "[(4, 10, 5)] + [(4, 8, 8)] * 2",
        "conv_pos_depth": 1,
    }
    return config


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in the layout of the hub."""
    folder = tmp_path_factory.mktemp("emotion2vec") / "checkpoint"
    config = tiny_config()
    torch.manual_seed(0)
    model = emotion2vec.build(config | {"vocab_size": 9})
    with torch.no_grad():  # scores that differ from one recording to another
        model.proj.weight.mul_(20)
    save(model, config, MINIATURE, folder)
    return folder


@pytest.fixture
def own(checkpoint: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(checkpoint, tmp_path / "checkpoint"))


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[Recording]:
    """Tones in noise of 1.1 to 2 s, each with a label; half of them happy."""
    folder = tmp_path_factory.mktemp("tones")
    rng, lines = np.random.default_rng(0), []
    for number in range(10):
        t = np.arange(int(SAMPLE_RATE * (1.1 + 0.1 * number))) / SAMPLE_RATE
        samples = 0.2 * np.sin(2 * np.pi * 100 * (number + 1) * t) + 0.01 * number * rng.standard_normal(len(t))
        digest = manifest.write_wav(folder / f"{number}.wav", samples)
        label = "happy" if number % 2 else emotional_prosody.LABELS[number // 2]
        lines.append(
            Line(id=f"{number}", wav=f"{number}.wav", seconds=len(t) / SAMPLE_RATE, sha256=digest, label=label)
        )
    manifest.write(folder, "evaluation", lines)
    return manifest.read(folder, "evaluation")


def torch_artifact(folder: Path):
    model = emotion2vec.load(folder)
    graph_set = emotion2vec.graph_set(model)
    return graph_set, torch_networks(graph_set, emotion2vec.export_modules(model))


# Loading


def change(folder: Path, edit) -> None:
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    edit(config)
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")


def test_an_extractor_that_is_code_is_refused_and_does_not_run(own: Path):
    ran = own / "ran"
    spec = f"[(4, 10, 5)] + [(4, 3, 2)] * __import__('pathlib').Path({str(ran)!r}).touch()"
    change(own, lambda c: c["model_conf"]["modalities"]["audio"].update(feature_encoder_spec=spec))
    with pytest.raises(UserError, match="FunASR runs this value as code"):
        emotion2vec.load(own)
    assert not ran.exists()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        pytest.param(lambda c: c.pop("model_conf"), "no model_conf; the family emotion2vec needs it", id="section"),
        pytest.param(
            lambda c: c["model_conf"].pop("mlp_ratio"),
            r"no model_conf\.mlp_ratio; the family emotion2vec needs it",
            id="width",
        ),
        pytest.param(
            lambda c: c["model_conf"].pop("modalities"), r"no model_conf\.modalities; the family", id="modality"
        ),
        pytest.param(
            lambda c: c["model_conf"].update(embed_dim=32), r"the weights do not fit config\.yaml", id="shape"
        ),
        pytest.param(
            lambda c: c["tokenizer_conf"].update(unk_symbol="?"),
            r"tokenizer_conf\.unk_symbol: found '\?', wanted '<unk>'",
            id="labels",
        ),
    ],
)
def test_a_config_that_lacks_something_names_it(own: Path, edit, message: str):
    change(own, edit)
    with pytest.raises(UserError, match=message):
        emotion2vec.load(own)


def test_a_checkpoint_without_labels_is_named(own: Path):
    (own / "tokens.txt").unlink()
    with pytest.raises(UserError, match=r"found no tokens\.json or tokens\.txt"):
        emotion2vec.load(own)


def test_weights_are_found_under_the_hubs_names_and_the_decoder_is_left(own: Path, recordings: list[Recording]):
    expected = emotion2vec.score(own, torch_artifact(own), "utterance", recordings[:1])
    weights = torch.load(own / "model.pt", weights_only=True)
    renamed = {name if name.startswith("proj.") else f"d2v_model.{name}": w for name, w in weights.items()}
    torch.save({"model": renamed | {"d2v_model.decoder.weight": torch.zeros(3)}}, own / "model.pt")
    found = emotion2vec.score(own, torch_artifact(own), "utterance", recordings[:1])
    np.testing.assert_array_equal(found[0].scores, expected[0].scores)


# Scoring and export


def test_a_swapped_network_says_what_funasrs_own_says(checkpoint: Path, recordings: list[Recording]):
    model = emotion2vec.load(checkpoint)
    tokenizer = emotion2vec.network.load_tokenizer(checkpoint)
    outcomes = emotion2vec.score(checkpoint, torch_artifact(checkpoint), "utterance", recordings)
    for recording, outcome in zip(recordings, outcomes, strict=True):
        with torch.inference_mode():
            (own,), _ = model.inference(
                [torch.from_numpy(recording.samples())], key=["a"], tokenizer=tokenizer, device="cpu"
            )
        np.testing.assert_allclose(outcome.scores, own["scores"], atol=1e-6)
        np.testing.assert_allclose(outcome.embedding, own["feats"], atol=1e-5)
    assert emotion2vec.metrics.labels(checkpoint) == emotional_prosody.LABELS


def test_the_export_has_names_of_its_own_and_says_the_same(
    checkpoint: Path, recordings: list[Recording], tmp_path: Path
):
    export_variant(emotion2vec, checkpoint, tmp_path, opset=18, tolerance=5e-5)
    graph_set = graphs.read(tmp_path)
    graph = graph_set.graphs["model"]
    assert graph.inputs["source"].shape == [1, "samples"]
    assert graph.outputs["frame_embeddings"].shape == [1, "frames", 16]
    artifact = graph_set, {"model": onnxruntime.network(tmp_path / graph.file, graph)}
    found = emotion2vec.score(checkpoint, artifact, "utterance", recordings)
    expected = emotion2vec.score(checkpoint, torch_artifact(checkpoint), "utterance", recordings)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a.scores, b.scores, atol=1e-4)


def test_the_shortest_input_makes_one_frame(checkpoint: Path):
    graph_set, networks = torch_artifact(checkpoint)
    shortest = graph_set.graphs["model"].axes["samples"].min
    outputs = networks["model"]({"source": np.ones((1, shortest), np.float32)})
    assert outputs["frame_embeddings"].shape == (1, 1, 16)
    with pytest.raises(RuntimeError):
        networks["model"]({"source": np.ones((1, shortest - 1), np.float32)})


# Accuracy


def test_accuracies_are_scikit_learns(checkpoint: Path, recordings: list[Recording]):
    rng = np.random.default_rng(1)
    outcomes = [Outcome(rng.random(9).astype(np.float32), np.ones(4, np.float32)) for _ in recordings]
    counts = emotion2vec.measure(checkpoint, recordings, outcomes, outcomes)
    pooled = {
        name: metric.pool(*(np.array([c[name][i] for c in counts]) for i in (0, 1)))
        for name, metric in emotion2vec.METRICS.items()
    }
    truth = [r.label for r in recordings]
    found = [emotional_prosody.LABELS[int(o.scores.argmax())] for o in outcomes]
    assert pooled["weighted_accuracy"] == pytest.approx(accuracy_score(truth, found))
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        assert pooled["unweighted_accuracy"] == pytest.approx(balanced_accuracy_score(truth, found))
    assert pooled["label_agreement"] == 1
    assert pooled["embedding_cosine"] == pytest.approx(1)
    assert pooled["score_distance"] == 0


def test_a_label_that_the_model_does_not_have_is_named(checkpoint: Path, recordings: list[Recording]):
    bored = [recordings[0].model_copy(update={"label": "bored"})]
    outcome = [Outcome(np.ones(9, np.float32), np.ones(4, np.float32))]
    with pytest.raises(UserError, match="found label 'bored', wanted one of angry, disgusted"):
        emotion2vec.measure(checkpoint, bored, outcome, outcome)


def test_outcomes_are_read_back_as_written(tmp_path: Path):
    outcomes = [Outcome(np.full(9, n, np.float32), np.full(4, n, np.float32)) for n in (3, 5)]
    emotion2vec.write_outcomes(tmp_path, "utterance", outcomes)
    for a, b in zip(outcomes, emotion2vec.read_outcomes(tmp_path, "utterance"), strict=True):
        np.testing.assert_array_equal(a.scores, b.scores)
        np.testing.assert_array_equal(a.embedding, b.embedding)


# Pruning


def parameters(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_a_pruned_model_is_smaller_and_loads_from_its_checkpoint(
    checkpoint: Path, recordings: list[Recording], tmp_path: Path
):
    model, config = emotion2vec.load(checkpoint), emotion2vec.read_config(checkpoint)
    crops = emotion2vec.calibration(checkpoint, recordings, PRUNE)
    small_config = emotion2vec.narrowed(config, PRUNE.ratio, {"mlp": PRUNE.round_to})
    small, refit = emotion2vec.cut(model, small_config, crops, PRUNE.criterion, PRUNE.refit_damping)
    assert 1 - parameters(small) / parameters(model) == pytest.approx(PRUNE.ratio, abs=0.01)
    assert emotion2vec.multiplications(small) < emotion2vec.multiplications(model)
    assert refit().keys() == {"modality_encoders.AUDIO.context_encoder.blocks.0.mlp", "blocks.0.mlp"}
    save(small, small_config, checkpoint, tmp_path / "pruned")
    again = emotion2vec.load(tmp_path / "pruned")
    assert emotion2vec.widths(again) == emotion2vec.widths(small)
    with torch.no_grad():
        assert torch.equal(again.extract_features(crops[:2])["x"], small.extract_features(crops[:2])["x"])


@pytest.mark.parametrize("width", [1, 43, 49])
def test_funasr_builds_the_width_that_was_asked_for(checkpoint: Path, width: int):
    config = emotion2vec.read_config(checkpoint)
    config["model_conf"] |= {"embed_dim": 48, "num_heads": 2, "mlp_ratio": 49 / 48 + 1e-6}
    model = emotion2vec.build(config)
    cost = 2 * (2 * 48 + 1)  # two blocks; with a channel go its row, its bias and its column
    config = emotion2vec.narrowed(config, (49 - width) * cost / parameters(model), {"mlp": 1})
    assert emotion2vec.widths(emotion2vec.build(config)) == {"mlp": width}


def test_there_is_nothing_to_distil_from_the_model_itself(checkpoint: Path, recordings: list[Recording]):
    model = emotion2vec.load(checkpoint)
    crops = emotion2vec.calibration(checkpoint, recordings, PRUNE)
    other = emotion2vec.build(emotion2vec.read_config(checkpoint))
    same, different = (emotion2vec.distillation(m, model, crops)(torch.Generator()) for m in (model, other))
    assert float(same.detach()) == pytest.approx(0, abs=1e-6)
    assert float(different.detach()) > 0.1


def test_channels_that_do_nothing_go_first(checkpoint: Path, recordings: list[Recording]):
    model, config = emotion2vec.load(checkpoint), emotion2vec.read_config(checkpoint)
    for block in (*model.modality_encoders["AUDIO"].context_encoder.blocks, *model.blocks):
        with torch.no_grad():
            block.mlp.fc2.weight[:, ::2] = 0
    crops = emotion2vec.calibration(checkpoint, recordings, PRUNE)
    half = copy.deepcopy(config)
    half["model_conf"]["mlp_ratio"] /= 2
    small, refit = emotion2vec.cut(model, half, crops, "least_squares", 1e-7)
    assert max(refit().values()) < 1e-4
    with torch.no_grad():
        wanted, found = (m.extract_features(crops[:4])["x"] for m in (model, small))
    assert (wanted - found).abs().max() < 0.02


def test_too_little_to_calibrate_on_is_named(checkpoint: Path, recordings: list[Recording]):
    with pytest.raises(UserError, match=r"found \d+ crops of 1 s in 2 recordings, wanted at least"):
        emotion2vec.calibration(checkpoint, recordings[:2], PRUNE)


# The miniature


def test_the_miniature_hears_most_labels(tmp_path: Path):
    emotional_prosody.make(5, {"evaluation": 27}, tmp_path)
    recordings = manifest.read(tmp_path, "evaluation")
    outcomes = emotion2vec.score(MINIATURE, torch_artifact(MINIATURE), "utterance", recordings)
    counts = emotion2vec.measure(MINIATURE, recordings, outcomes, outcomes)
    assert sum(c["weighted_accuracy"][0] for c in counts) > 0.7 * len(counts)


@pytest.mark.parametrize("samples", [1, 300])
def test_a_recording_of_less_than_a_frame_is_named(checkpoint: Path, tmp_path: Path, samples: int):
    digest = manifest.write_wav(tmp_path / "moment.wav", np.full(samples, 0.1))
    line = Line(id="moment", wav="moment.wav", seconds=samples / SAMPLE_RATE, sha256=digest, label="happy")
    recording = Recording(folder=tmp_path, **line.model_dump())
    with pytest.raises(UserError, match=rf"moment\.wav: found {samples} samples, wanted at least \d+, one frame"):
        emotion2vec.score(checkpoint, torch_artifact(checkpoint), "utterance", [recording])
