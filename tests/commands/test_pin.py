"""`python -m stages pin`: what the hub lists is written down once, and an alarm when it lists something else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from stages import fetch
from stages.__main__ import main
from stages.core import layout, params, pins
from stages.core.errors import UserError
from tests.hub import Hub, files_of
from tests.workspace import ROOT

HUB_ID, REVISION = "someone/tiny.model", "v2.0.4"
WEIGHTS, CONFIG = bytes(range(256)), b"frontend_conf: {}\nmodel_conf: {}\nencoder: FSMN\nencoder_conf: {}\n"
FILES = {"model.pt": WEIGHTS, "config.yaml": CONFIG, "am.mvn": b"<Nnet>", "tokens.json": b"[]"}
OTHERS = {"README.md": b"# Tiny", "example/a.wav": b"RIFF", "model.py": b"raise SystemExit", "fig/config.yaml": b"a: 1"}
ON_HUB = {"kind": "modelscope", "hub_id": HUB_ID, "revision": REVISION}
MINIATURES = sorted(path.parent for path in ROOT.glob("zoo/*/config.yaml"))


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: Hub):
    """A repository with one model, `tiny`, and a hub that has it."""
    monkeypatch.chdir(tmp_path)
    hub.models = {HUB_ID: {REVISION: FILES | OTHERS}}
    write_params(ON_HUB)


def write_params(*sources: Mapping[str, str]) -> None:
    settings: dict[str, Any] = YAML(typ="safe").load(ROOT / "params.yaml")
    line = {"family": "fsmn_vad", "dataset": "vad_mixtures", "license": "MIT", "sources": list(sources)}
    settings["models"]["tiny"] = line
    YAML().dump(settings, Path("params.yaml"))


def locked(name: str = "tiny") -> dict[str, Any]:
    content: dict[str, Any] = json.loads(layout.pin(name).read_text())
    return content


def entries(files: Mapping[str, bytes]) -> dict[str, dict[str, Any]]:
    return {name: {"size": len(files[name]), "sha256": sha256(files[name]).hexdigest()} for name in sorted(files)}


def test_writes_what_the_hub_lists_and_downloads_nothing(hub: Hub, capsys: pytest.CaptureFixture[str]):
    main(["pin", "tiny"])
    assert locked() == {"hub_id": HUB_ID, "revision": REVISION, "files": entries(FILES)}
    assert hub.downloads == []
    said = capsys.readouterr().out
    assert "4 files, 328 bytes, from modelscope; left out: README.md, example/a.wav, fig/config.yaml, model.py" in said
    assert f"+ am.mvn: 6 bytes, sha256 {sha256(b'<Nnet>').hexdigest()}" in said


def test_fetch_takes_what_was_pinned():
    main(["pin", "tiny"])
    fetch.main(["tiny"])
    assert files_of(layout.checkpoint("tiny")) == FILES


def test_the_same_again_changes_nothing(capsys: pytest.CaptureFixture[str]):
    main(["pin", "tiny"])
    before = layout.pin("tiny").stat()
    capsys.readouterr()
    main(["pin", "tiny"])
    assert capsys.readouterr().out.endswith("pins/tiny.json is up to date\n")
    assert layout.pin("tiny").stat().st_mtime_ns == before.st_mtime_ns


def test_other_bytes_under_the_same_revision_are_an_alarm(hub: Hub):
    main(["pin", "tiny"])
    before = locked()
    hub.models[HUB_ID][REVISION] = FILES | {"model.pt": WEIGHTS[::-1]}
    found, was = (sha256(content).hexdigest() for content in (WEIGHTS[::-1], WEIGHTS))
    with pytest.raises(UserError, match=rf"revision v2\.0\.4\n.*! model\.pt: 256 bytes, sha256 {found}, was .*{was}"):
        main(["pin", "tiny"])
    assert locked() == before
    main(["pin", "tiny", "--force"])
    assert locked()["files"]["model.pt"]["sha256"] == found


def test_another_revision_may_have_other_bytes(hub: Hub, capsys: pytest.CaptureFixture[str]):
    main(["pin", "tiny"])
    hub.models[HUB_ID]["v2.0.5"] = {"model.pt": WEIGHTS[::-1], "config.yaml": CONFIG, "tokens.txt": b"a"}
    write_params(ON_HUB | {"revision": "v2.0.5"})
    with pytest.raises(UserError, match=r"is of someone/tiny\.model at v2\.0\.4, .* run `python -m stages pin tiny`"):
        fetch.main(["tiny"])
    main(["pin", "tiny"])
    fetch.main(["tiny"])
    marks = [line.split(":")[0] for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert marks[4:] == ["  - am.mvn", "  ! model.pt", "  - tokens.json", "  + tokens.txt"]


def test_a_branch_cannot_be_pinned():
    write_params(ON_HUB | {"revision": "master"})
    with pytest.raises(UserError, match="'master' can move; wanted a version tag"):
        main(["pin", "tiny"])


def test_a_listing_without_digests_is_refused(hub: Hub):
    hub.faults.no_sha256 = True
    said = "no size or no sha256 is listed for am.mvn, config.yaml, model.pt, tokens.json, so a download could not"
    with pytest.raises(UserError, match=said):
        main(["pin", "tiny"])
    assert not layout.pin("tiny").exists()


def test_a_path_outside_is_refused(hub: Hub):
    hub.faults.paths = ["../../model.pt"]
    with pytest.raises(UserError, match="would leave its folder; nothing was written"):
        main(["pin", "tiny"])


def test_a_repository_without_weights_is_refused(hub: Hub):
    hub.models[HUB_ID][REVISION] = {"config.yaml": CONFIG, "model_quant.onnx": b"onnx"}
    with pytest.raises(UserError, match=r"no model\.pt among config\.yaml, model_quant\.onnx"):
        main(["pin", "tiny"])


@pytest.mark.parametrize("name", ["tinny", "paraformer_larg"])
def test_an_unknown_model_is_named(name: str):
    with pytest.raises(UserError, match=rf"neither .* has a model '{name}'; did you mean"):
        main(["pin", name])


def test_a_model_of_the_catalogue_needs_no_line_in_params(hub: Hub):
    name = "iic/speech_paraformer-large_asr_nat-zh-cn-16k-common-vocab8404-pytorch"
    hub.models = {name: {"v2.0.4": {**FILES, "seg_dict": b"a b", "example/asr_example.wav": b"RIFF"}}}
    main(["pin", "paraformer_large"])
    assert locked("paraformer_large")["hub_id"] == name
    assert locked("paraformer_large")["files"] == entries(FILES | {"seg_dict": b"a b"})


def test_a_folder_of_the_repository(capsys: pytest.CaptureFixture[str]):
    write_params({"kind": "folder", "path": "zoo/tiny"})
    for file, content in (FILES | OTHERS).items():
        Path("zoo/tiny", file).parent.mkdir(parents=True, exist_ok=True)
        Path("zoo/tiny", file).write_bytes(content)
    main(["pin", "tiny"])
    assert locked() == {"files": entries(FILES)}
    fetch.main(["tiny"])
    assert files_of(layout.checkpoint("tiny")) == FILES
    Path("zoo/tiny/model.pt").write_bytes(WEIGHTS[::-1])  # trained again: no revision, no alarm
    main(["pin", "tiny"])
    assert "! model.pt" in capsys.readouterr().out


def test_falls_over_to_the_next_source_and_says_so(hub: Hub, capsys: pytest.CaptureFixture[str]):
    hub.models = {}
    write_params(ON_HUB, {"kind": "folder", "path": "mirror"})
    for file, content in FILES.items():
        Path("mirror").mkdir(exist_ok=True)
        Path("mirror", file).write_bytes(content)
    main(["pin", "tiny"])
    said = capsys.readouterr()
    assert "has no model 'someone/tiny.model'" in said.err
    assert "from folder" in said.out
    assert (locked()["hub_id"], locked()["revision"]) == (HUB_ID, REVISION)


def test_a_config_that_lacks_a_key_is_named_before_anything_is_built(hub: Hub):
    hub.models[HUB_ID][REVISION]["config.yaml"] = b"encoder: FSMN\n"
    main(["pin", "tiny"])
    with pytest.raises(UserError, match="no frontend_conf, model_conf, encoder_conf; the family fsmn_vad needs it"):
        fetch.main(["tiny"])


@pytest.mark.parametrize("folder", MINIATURES, ids=lambda folder: folder.name)
def test_the_hub_serves_a_miniature(hub: Hub, folder: Path):
    hub.models[HUB_ID][REVISION] = files_of(folder)
    main(["pin", "tiny"])
    model, place = params.load().models["tiny"], layout.checkpoint("tiny")
    fetch.fetch("tiny", model, pins.demand("tiny", model), place)
    assert files_of(place) == {name: content for name, content in files_of(folder).items() if name != "README.md"}
