"""`kiln add NAME --from ...`: a checkpoint of the user's becomes an entry and a pin in one command."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import yaml
from ruamel.yaml import YAML

from stages import fetch
from stages.__main__ import main
from stages.commands import add
from stages.core import layout, params, pins, plan
from stages.core.errors import UserError
from stages.core.files import sha256
from stages.sources import folder
from tests.hub import Hub, files_of
from tests.workspace import ROOT

TEXT = (ROOT / "params.yaml").read_text()
TARGETS = ["cpu_fp32", "cpu_fp32_opt", "cpu_int8", "cpu_pruned", "cpu_pruned_int8", "server_int8", "trt_rtx_fp16"]


@pytest.fixture(autouse=True)
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with the real params.yaml, and a fine-tuned checkpoint in a folder beside it."""
    (tmp_path / "repository").mkdir()
    monkeypatch.chdir(tmp_path / "repository")
    Path("params.yaml").write_text(TEXT)
    return Path(shutil.copytree(ROOT / "zoo/paraformer", tmp_path / "mine"))


def settings_of(mine: Path, **changes: object) -> None:
    """Change keys of its config.yaml; None takes one out."""
    path = mine / "config.yaml"
    config = yaml.safe_load(path.read_text()) | changes
    path.write_text(yaml.safe_dump({key: value for key, value in config.items() if value is not None}))


def untouched() -> bool:
    return Path("params.yaml").read_text() == TEXT and not Path("pins").exists()


def test_a_folder_becomes_an_entry_with_builds_and_a_pin(mine: Path, capsys: pytest.CaptureFixture[str]):
    main(["add", "my_asr", "--from", str(mine)])
    p = params.load()
    assert p.models["my_asr"].model_dump(mode="json", include=set(params.Checkpoint.model_fields)) == {
        "family": "paraformer",
        "dataset": "spoken_commands",
        "license": "Apache-2.0",  # the card's
        "sources": [{"kind": "folder", "path": str(mine)}],
    }
    assert p.models["my_asr"].targets == TARGETS
    fetch.main(["my_asr"])
    assert files_of(layout.checkpoint("my_asr")).keys() == files_of(mine).keys() - {"README.md"}
    said = capsys.readouterr().out
    assert "my_asr: Paraformer of the family paraformer" in said
    assert "  parameters: 285,391\n  graphs: model\n  can be pruned: encoder_conf.linear_units 192," in said
    assert "headline cer" in said
    assert f"targets {', '.join(TARGETS)}, as other models of its family have" in said


@pytest.mark.parametrize(
    ("miniature", "family"),
    [
        ("paraformer_streaming", "paraformer_streaming"),
        ("ct_transformer", "ct_transformer"),
        ("ct_transformer_realtime", "ct_transformer"),
        ("emotion2vec", "emotion2vec"),
    ],
)
def test_the_family_is_read_off_config_yaml(miniature: str, family: str):
    main(["add", "mine", "--from", str(ROOT / "zoo" / miniature), "--targets", "cpu_int8"])
    assert params.load().models["mine"].family == family


def test_a_detector_s_family_is_read_off_config_yaml(tiny_checkpoint: Path, mine: Path):
    shutil.copytree(tiny_checkpoint, mine, dirs_exist_ok=True)
    settings_of(mine, model="FsmnVADStreaming")
    main(["add", "my_vad", "--from", str(mine), "--targets", "cpu_int8"])
    assert params.load().models["my_vad"].family == "fsmn_vad"


def test_the_hub_by_its_id_and_revision(mine: Path, hub: Hub):
    hub.models = {"someone/tuned": {"v1.0.1": files_of(mine)}}
    main(["add", "tuned", "--from", "someone/tuned@v1.0.1", "--targets", "cpu_int8,cpu_pruned"])
    source = params.load().models["tuned"].sources[0]
    assert source.model_dump() == {"kind": "modelscope", "hub_id": "someone/tuned", "revision": "v1.0.1"}
    assert params.load().prune_settings("tuned") == params.load().prune["paraformer"]
    fetch.main(["tuned"])
    assert files_of(layout.checkpoint("tuned"))["model.pt"] == files_of(mine)["model.pt"]


def test_a_data_set_is_set_at_every_place_and_a_licence_is_recorded(mine: Path):
    text = TEXT.replace("datasets:\n", "datasets:\n  calls: {kind: manifest, path: data/calls}\n")
    Path("params.yaml").write_text(text)
    main(["add", "my_asr", "--from", str(mine), "--dataset", "calls", "--license", "All rights: ours"])
    p = params.load()
    assert (p.models["my_asr"].dataset, p.models["my_asr"].license) == ("calls", "All rights: ours")
    tables = plan.derive(p)
    quantized = [line.dataset for line in tables.quantize.values() if line.model == "my_asr"]
    assert {*quantized, tables.prune["my_asr"].dataset} == {"calls"}


def test_a_model_that_is_there_gets_another_data_set_and_keeps_all_else():
    text = TEXT.replace("datasets:\n", "datasets:\n  calls: {kind: manifest, path: data/calls}\n")
    Path("params.yaml").write_text(text)
    main(["add", "paraformer", "--dataset", "calls"])
    before, after = text.splitlines(), Path("params.yaml").read_text().splitlines()
    changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert changed == [("    dataset: spoken_commands", "    dataset: calls")]
    assert params.load().models["paraformer"].dataset == "calls"


def test_an_unknown_data_set_is_refused(mine: Path):
    with pytest.raises(UserError, match="no data set 'spoken_command'; did you mean 'spoken_commands'"):
        main(["add", "my_asr", "--from", str(mine), "--dataset", "spoken_command"])
    assert untouched()


@pytest.mark.parametrize(
    ("card", "found"),
    [
        pytest.param("---\nlicense: Apache License 2.0\n---\n# Mine\n", "Apache License 2.0", id="a-text"),
        pytest.param("\ufeff---\r\nlicense: MIT\r\n---\r\n", "MIT", id="as-windows-saves-it"),
        pytest.param("---\nlicense: [mit, cc-by-4.0]\n---\n", "mit, cc-by-4.0", id="two"),
        pytest.param("---\nlicense:\n---\n", "unknown", id="empty"),
        pytest.param(
            "---\nlicense:\n  - mit\n  - 'cc-by-4.0'  # of the data\ntags: [a]\n---\n", "mit, cc-by-4.0", id="a-list"
        ),
        pytest.param("---\nlicense: [\n---\n", "unknown", id="not-yaml"),
        pytest.param("# Mine\nlicense: MIT\n", "unknown", id="no-front-matter"),
        pytest.param(None, "unknown", id="no-card"),
    ],
)
def test_the_licence_is_the_card_s(mine: Path, card: str | None, found: str, capsys: pytest.CaptureFixture[str]):
    (mine / "README.md").unlink()
    if card is not None:
        (mine / "README.md").write_text(card, newline="")
    main(["add", "my_asr", "--from", str(mine), "--targets", "cpu_int8"])
    assert params.load().models["my_asr"].license == found
    assert ("say it with --license" in capsys.readouterr().out) == (found == "unknown")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        pytest.param(
            {"model": "Conformer"},
            "mine/config.yaml: found model Conformer, which no family takes .*; seaco_paraformer takes Sea",
            id="no-family",
        ),
        pytest.param(
            {"model": "ContextualParaformer"},
            r"config\.yaml model: found ContextualParaformer, which cannot be built: .* use seaco_paraformer_large",
            id="a-known-model-that-is-not-built",
        ),
        pytest.param({"model": "Parafomer"}, r"did you mean 'Paraformer'\?", id="a-typo"),
        pytest.param({"model": None}, "found model None, which no family takes", id="no-model"),
        pytest.param({"model": {"type": "funasr"}}, "found model {'type': 'funasr'}, which no family", id="a-mapping"),
        pytest.param({"encoder_conf": None}, r"config\.yaml.*encoder_conf.*\n? *.*mine\)", id="no-section"),
    ],
)
def test_a_config_that_no_family_takes_is_refused_with_what_was_found(
    mine: Path, changes: dict[str, object], said: str
):
    settings_of(mine, **changes)
    with pytest.raises(UserError, match=said) as caught:
        main(["add", "my_asr", "--from", str(mine)])
    assert set(re.findall(r"/\S*/config\.yaml", str(caught.value))) <= {f"{mine}/config.yaml"}
    assert untouched()


def test_a_folder_without_config_yaml_is_refused(mine: Path):
    (mine / "config.yaml").unlink()
    with pytest.raises(UserError, match=r"mine: no config\.yaml among README\.md, am\.mvn, configuration\.json"):
        main(["add", "my_asr", "--from", str(mine)])
    assert untouched()


@pytest.mark.parametrize("name", ["config.yaml", "tokens.json"])
def test_an_empty_file_is_called_empty(mine: Path, name: str):
    (mine / name).write_bytes(b"")
    with pytest.raises(UserError, match=rf"mine/{re.escape(name)} is empty"):
        main(["add", "my_asr", "--from", str(mine)])
    assert untouched()


def test_a_training_run_says_which_file_to_choose(mine: Path):
    for epoch in ("model.pt.ep1", "model.pt.best"):
        shutil.copy(mine / "model.pt", mine / epoch)
    (mine / "model.pt").unlink()
    with pytest.raises(UserError, match=r"copy the one to build, such as model\.pt\.best, to model\.pt"):
        main(["add", "my_asr", "--from", str(mine)])


@pytest.mark.parametrize(
    ("name", "origin", "said"),
    [
        pytest.param("My-ASR", "{mine}", "found 'My-ASR', wanted a name of lower-case letters", id="name"),
        pytest.param(
            "123", "{mine}", "a model: found '123', wanted a name of .* that YAML reads as a text", id="number"
        ),
        pytest.param("paraformer", "{mine}", "params.yaml has a model 'paraformer' with other sources", id="taken"),
        pytest.param(
            "paraformer_large", "{mine}", "catalogue.yaml has a model 'paraformer_large' with", id="catalogue"
        ),
        pytest.param("speech", "{mine}", "'speech' is the name of a model; a pipeline", id="a-pipeline"),
        pytest.param("mine", "nowhere", "--from nowhere: not a folder; wanted one, or OWNER/MODEL@REV", id="no-folder"),
        pytest.param("mine", "iic/SenseVoiceSmall", "catalogue.yaml has it as sensevoice_small", id="no-revision"),
        pytest.param("mine", "a/b@master", "revision: 'master' can move; wanted a version tag", id="a-branch"),
        pytest.param("mine", "b@v1.0", "--from b@v1.0: hub_id: .* wanted a folder or OWNER/MODEL@REV", id="no-owner"),
    ],
)
def test_what_cannot_be_added_is_refused_and_nothing_is_written(mine: Path, name: str, origin: str, said: str):
    with pytest.raises(UserError, match=said):
        main(["add", name, "--from", origin.format(mine=mine)])
    assert untouched()


def test_a_target_without_limits_leaves_params_and_pin_as_they_were(mine: Path):
    limits = YAML(typ="safe").load(TEXT)
    del limits["gates"]["pruned"]["accuracy"]["paraformer"]
    limits["models"]["paraformer"]["targets"] = ["cpu_fp32"]
    limits["pipelines"] = {}
    YAML().dump(limits, Path("params.yaml"))
    before = Path("params.yaml").read_text()
    with pytest.raises(UserError, match="has no limits for the family 'paraformer'"):
        main(["add", "my_asr", "--from", str(mine), "--targets", "cpu_pruned"])
    assert Path("params.yaml").read_text() == before
    assert pins.read("my_asr") is None


def test_a_pin_without_its_entry_does_not_stay(mine: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(add, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        main(["add", "my_asr", "--from", str(mine)])
    assert pins.read("my_asr") is None
    assert Path("params.yaml").read_text() == TEXT


def test_the_same_again_changes_nothing_and_more_targets_go_to_its_own_data_set(mine: Path):
    text = TEXT.replace("datasets:\n", "datasets:\n  calls: {kind: manifest, path: data/calls}\n")
    Path("params.yaml").write_text(text)
    command = ["add", "my_asr", "--from", str(mine), "--targets"]
    main([*command, "cpu_fp32", "--dataset", "calls"])
    first = Path("params.yaml").read_text()
    main([*command, "cpu_fp32"])
    assert Path("params.yaml").read_text() == first
    main([*command, "cpu_int8"])
    assert plan.derive(params.load()).quantize["my_asr-dense-int8"].dataset == "calls"


def test_a_dry_run_writes_nothing(mine: Path, capsys: pytest.CaptureFixture[str]):
    main(["add", "my_asr", "--from", str(mine), "--dry-run"])
    assert "+  my_asr:\n+    family: paraformer\n" in capsys.readouterr().out
    assert untouched()


def test_weights_of_other_epochs_are_not_read(mine: Path, monkeypatch: pytest.MonkeyPatch):
    (mine / "model.pt.ep1").write_bytes(b"another epoch")
    read = []

    def digest(path: Path) -> str:
        read.append(path.name)
        return sha256(path)

    monkeypatch.setattr(folder, "sha256", digest)
    main(["add", "my_asr", "--from", str(mine), "--targets", "cpu_int8"])
    assert "model.pt" in read
    assert "model.pt.ep1" not in read
