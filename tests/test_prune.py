"""A pruned checkpoint is as small as asked, loads like any other, repeats to the byte and says nearly the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from ruamel.yaml import YAML

from stages import prune
from stages.core import layout
from stages.core.errors import UserError
from stages.core.files import sha256
from stages.core.params.prune import PruneParams
from stages.models import fsmn_vad
from stages.models.fsmn_vad.stream import Stream
from stages.models.shared import checkpoint
from stages.pruning import recovery
from tests import workspace
from tests.conftest import CONFIG
from tests.workspace import ROOT

SETTINGS = workspace.PRUNE


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path, stream: torch.Tensor):
    """The tiny checkpoint, made to find speech in half of the stream: its random weights make nothing of any."""
    model = fsmn_vad.load(tiny_checkpoint)
    last = model.encoder.out_linear2.linear
    with torch.no_grad():
        last.weight *= 100
        last.bias[0] -= silence(model, stream).median()
    return model


@pytest.fixture(scope="module")
def stream() -> torch.Tensor:
    """Features that change slowly and lie in fewer dimensions than they have, as speech's do."""
    generator = torch.Generator().manual_seed(0)
    walk = torch.randn(1000, 20, generator=generator).cumsum(dim=0)
    steady = (walk - walk.mean(dim=0)) / walk.std(dim=0)
    return steady @ torch.randn(20, 400, generator=generator)


def settings(**changes: object) -> PruneParams:
    return SETTINGS.model_copy(update=changes)


def pruned(model: Any, calibration: torch.Tensor, tuning: torch.Tensor, chosen: PruneParams = SETTINGS):
    """The small model, its configuration and the record; what counts as accuracy is closeness to the dense model."""

    def accuracy(small: torch.nn.Module) -> float:
        return 1 - drift(model, small, tuning)

    return prune.prune(fsmn_vad, model, CONFIG, Stream(calibration), Stream(tuning), chosen, accuracy=accuracy)


def drift(model: torch.nn.Module, small: torch.nn.Module, stream: torch.Tensor) -> float:
    with torch.no_grad():
        return recovery.relative_error(silence(small, stream), silence(model, stream))


def silence(model: torch.nn.Module, stream: torch.Tensor) -> torch.Tensor:
    """Log odds of silence, (frames, 1): what the detector reads."""
    two = fsmn_vad.pruning.silence_logits(model, fsmn_vad.pruning.logits(model, stream[None])[0])
    return two[:, :1] - two[:, 1:]


@pytest.mark.parametrize("criterion", ["magnitude", "activation", "taylor", "least_squares"])
def test_removes_the_wanted_share_and_still_says_nearly_the_same(model: Any, stream: torch.Tensor, criterion: str):
    small, config, record = pruned(model, stream, stream, settings(criterion=criterion))
    assert record["removed"] == pytest.approx(0.3, abs=prune.TOLERANCE)
    assert record["pruned"]["widths"] == {key: config["encoder_conf"][key] for key in fsmn_vad.pruning.WIDTHS}
    assert record["pruned"]["macs"] < 0.75 * record["dense"]["macs"]
    projection = small.encoder.fsmn[0].linear.linear.weight
    assert projection.shape == (config["encoder_conf"]["proj_dim"], config["encoder_conf"]["linear_dim"])
    assert projection.count_nonzero() == projection.numel()
    assert drift(model, small, stream) < 0.2


def test_the_checkpoint_loads_again(model: Any, stream: torch.Tensor, tiny_checkpoint: Path, tmp_path: Path):
    small, config, _ = pruned(model, stream, stream)
    checkpoint.save(small, config, tiny_checkpoint, tmp_path)
    loaded = fsmn_vad.load(tmp_path)
    assert torch.equal(fsmn_vad.pruning.logits(loaded, stream[None]), fsmn_vad.pruning.logits(small, stream[None]))
    assert fsmn_vad.graph_set(loaded).graphs["model"].inputs["in_cache0"].shape[1] == config["encoder_conf"]["proj_dim"]
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["model_conf"] == CONFIG["model_conf"]
    assert sha256(tmp_path / "am.mvn") == sha256(tiny_checkpoint / "am.mvn")


def test_the_same_seed_gives_the_same_bytes(model: Any, stream: torch.Tensor, tiny_checkpoint: Path, tmp_path: Path):
    digests = []
    for name, seed in (("first", 7), ("again", 7), ("other", 8)):
        chosen = settings(distill_steps=4, validate_every=2, learning_rate=1e-5, seed=seed)
        small, config, _ = pruned(model, stream[:800], stream[200:], chosen)
        (tmp_path / name).mkdir()
        checkpoint.save(small, config, tiny_checkpoint, tmp_path / name)
        digests.append(sha256(tmp_path / name / "model.pt"))
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("criterion", ["magnitude", "activation", "taylor", "least_squares"])
def test_the_refit_lowers_the_output_error(model: Any, stream: torch.Tensor, criterion: str):
    config = fsmn_vad.narrowed(CONFIG, 0.3, dict.fromkeys(fsmn_vad.pruning.WIDTHS, 1))
    with recovery.fixed_threads(recovery.REFIT_THREADS), torch.no_grad():
        inputs, _ = recovery.record(model.encoder, stream)
        raw, _ = fsmn_vad.pruning.cut_channels(model, config, stream, inputs, criterion, 1e-4)
        small, refit = fsmn_vad.cut(model, config, Stream(stream), criterion, 1e-4)
    as_cut = drift(model, small, stream)
    assert as_cut == drift(model, raw, stream)
    refit()
    assert drift(model, small, stream) < 0.5 * as_cut


def test_distillation_lowers_its_loss(model: Any, stream: torch.Tensor):
    _, _, record = pruned(model, stream, stream, settings(distill_steps=30, validate_every=15, learning_rate=1e-5))
    losses = record["distillation"]["calibration_loss"]
    assert losses["last"] < losses["first"]


def test_the_record_says_what_each_part_of_the_recovery_gained(model: Any, stream: torch.Tensor):
    chosen = settings(distill_steps=20, validate_every=5, learning_rate=1e-5)
    small, _, record = pruned(model, stream[:800], stream[200:], chosen)
    after = record["tuning_loss"]
    assert after["cut"] > after["refit"] > after["distillation"] > 0
    accuracy = record["accuracy"]
    assert accuracy["dense"] == 1 > min(accuracy["refit"], accuracy["distillation"]) > accuracy["cut"]
    assert accuracy["distillation"] == 1 - drift(model, small, stream[200:])
    assert after["distillation"] == recovery.mean_loss(fsmn_vad.distillation(small, model, Stream(stream[200:])))


def test_sensitivity_takes_from_the_widths_that_cost_least(model: Any, stream: torch.Tensor):
    chosen = settings(ratio_of="prunable", allocation="sensitivity", variations=0, distill_steps=0)
    small, config, record = pruned(model, stream, stream, chosen)
    check_shares(model, small, record)
    assert record["removed_of_prunable"] >= 0.3
    assert record["pruned"]["widths"] == {key: config["encoder_conf"][key] for key in fsmn_vad.pruning.WIDTHS}
    assert record["sensitivity"].keys() == set(fsmn_vad.pruning.WIDTHS)
    ends = [(curve[0], curve[-1]) for curve in record["sensitivity"].values()]
    assert all(narrow["width"] < wide["width"] and narrow["removed"] > wide["removed"] > 0 for narrow, wide in ends)
    dearer = [narrow["tuning_loss"] > 1.5 * wide["tuning_loss"] for narrow, wide in ends]
    assert sum(dearer) >= 2  # what leaves the last pair of layers is one number, which any width carries


def test_without_distillation_the_refit_is_what_there_is(model: Any, stream: torch.Tensor):
    _, _, record = pruned(model, stream, stream, settings(distill_steps=0))
    for measured in (record["tuning_loss"], record["accuracy"]):
        assert measured["refit"] == measured["distillation"]
    assert record["distillation"]["kept_step"] == record["distillation"]["steps"] == 0


def test_the_record_has_the_shares_of_all_and_of_what_can_be_cut(model: Any, stream: torch.Tensor):
    small, _, record = pruned(model, stream, stream, settings(ratio_of="prunable", variations=0, distill_steps=0))
    check_shares(model, small, record)


def check_shares(model: torch.nn.Module, small: torch.nn.Module, record: dict[str, Any]) -> None:
    """Check the shares of all parameters and of the prunable ones that are gone, of which 0.3 were asked."""
    gone = sum(p.numel() for p in model.parameters()) - sum(p.numel() for p in small.parameters())
    assert record["removed_of_prunable"] == pytest.approx(gone / record["prunable"])
    assert record["removed_of_prunable"] == pytest.approx(0.3, abs=prune.TOLERANCE)
    assert record["removed"] == pytest.approx(gone / record["dense"]["parameters"])
    assert record["removed"] < record["removed_of_prunable"]


def test_a_model_with_nothing_to_cut_is_refused(model: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fsmn_vad, "widths", lambda _: {})
    with pytest.raises(UserError, match="found no layer to cut, heads: False; wanted a feed-forward layer"):
        prune.goal(fsmn_vad, model, CONFIG, SETTINGS)
    monkeypatch.setattr(fsmn_vad, "widths", lambda _: {"encoder_conf.kept_heads": 4})
    with pytest.raises(UserError, match=r"found encoder_conf\.kept_heads to cut, heads: False; wanted .* heads: true"):
        prune.goal(fsmn_vad, model, CONFIG, SETTINGS)


def test_heads_of_a_model_without_them_are_refused(model: Any):
    with pytest.raises(UserError, match="found heads: true, and no heads to cut; wanted false, with input_affine_dim"):
        prune.goal(fsmn_vad, model, CONFIG, settings(heads=True))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"round_to": 16}, "multiples of 16 remove", id="no such widths"),
        pytest.param({"ratio": 0.89, "round_to": 8}, "found ratio: 0.89 of all, wanted", id="more than there is"),
    ],
)
def test_a_ratio_that_widths_cannot_reach_is_refused(
    model: Any, stream: torch.Tensor, changes: dict[str, Any], message: str
):
    with pytest.raises(UserError, match=message):
        pruned(model, stream, stream, settings(**changes))


def test_too_little_calibration_audio_is_refused(model: Any, stream: torch.Tensor):
    with pytest.raises(UserError, match=r"found 300 frames .* wanted at least"):
        pruned(model, stream[:300], stream)


def test_too_little_tuning_audio_is_refused(model: Any, stream: torch.Tensor):
    with pytest.raises(UserError, match=r"found 300 frames .* wanted at least 600 to .* tune on"):
        pruned(model, stream, stream[:300])


@pytest.mark.parametrize("round_to", [1, 4])
def test_counts_parameters_without_building_the_model(round_to: int):
    config = fsmn_vad.narrowed(CONFIG, 0.4, dict.fromkeys(fsmn_vad.pruning.WIDTHS, round_to))
    built = sum(p.numel() for p in fsmn_vad.build(config).parameters())
    assert fsmn_vad.pruning._parameters(config["encoder_conf"]) == built
    assert all(config["encoder_conf"][key] % round_to == 0 for key in fsmn_vad.pruning.WIDTHS)


def test_reduced_rank_is_exact_where_the_rank_suffices():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(500, 10, generator=generator)
    wanted = inputs @ torch.randn(10, 3, generator=generator) @ torch.randn(3, 8, generator=generator) + 1
    (w1, b1), (w2, b2) = recovery.reduced_rank(inputs, wanted, 3, damping=1e-9)
    assert w1.shape == (3, 10)
    torch.testing.assert_close((inputs @ w1.T + b1) @ w2.T + b2, wanted, atol=1e-3, rtol=0)


def test_reduced_rank_keeps_what_counts():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(500, 10, generator=generator)
    wanted = inputs @ torch.randn(10, 8, generator=generator) * torch.tensor([1.0] + [10.0] * 7)
    importance = torch.diag(torch.tensor([1.0] + [1e-6] * 7, dtype=torch.float64))

    def error(importance: torch.Tensor | None) -> float:
        (w1, b1), (w2, b2) = recovery.reduced_rank(inputs, wanted, 2, 1e-9, importance)
        found = (inputs @ w1.T + b1) @ w2.T + b2
        return recovery.relative_error(found[:, :1], wanted[:, :1])

    assert error(importance) < 0.01
    assert error(None) > 0.1


def test_reduced_rank_beyond_the_outputs_is_a_full_regression():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(500, 10, generator=generator)
    (w1, b1), (w2, b2) = recovery.reduced_rank(inputs, inputs[:, :2], 5, damping=1e-9)
    assert w1.shape == (5, 10)
    torch.testing.assert_close((inputs @ w1.T + b1) @ w2.T + b2, inputs[:, :2], atol=1e-3, rtol=0)


def test_the_stage_writes_a_checkpoint_with_its_record(
    tiny_checkpoint: Path, tiny_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    raw = YAML(typ="safe").load(ROOT / "params.yaml")
    raw["datasets"]["tiny"] = {"kind": "manifest", "path": str(tiny_corpus)}
    raw["models"]["fsmn_vad"]["dataset"] = "tiny"
    raw["prune"]["fsmn_vad"] = SETTINGS.model_dump()
    YAML().dump(raw, tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    layout.checkpoint("fsmn_vad").parent.mkdir(parents=True)
    layout.checkpoint("fsmn_vad").symlink_to(tiny_checkpoint)
    layout.corpus("tiny").parent.mkdir(parents=True)
    layout.corpus("tiny").symlink_to(tiny_corpus)
    prune.main(["fsmn_vad"])
    place = layout.checkpoint("fsmn_vad", "pruned")
    record = json.loads((place / prune.RECORD).read_text())
    assert record["pruned"]["model_bytes"] == (place / "model.pt").stat().st_size < record["dense"]["model_bytes"]
    assert record["accuracy"]["metric"] == "offline_frame_agreement"
    assert record["accuracy"]["dense"] == 1 >= record["accuracy"]["refit"] > 0.5
    fsmn_vad.load(place)
