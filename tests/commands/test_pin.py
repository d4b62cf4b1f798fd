"""`kiln pin`: what the hub lists is written down once, and an alarm when it lists something else."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ruamel.yaml import YAML

from stages import fetch
from stages.__main__ import main
from stages.core import layout, params, pins
from stages.core.errors import UserError
from tests.hub import Files, Hub, files_of
from tests.workspace import ROOT

HUB_ID, REVISION = "someone/tiny.model", "v2.0.4"
OTHERS = {"README.md": b"# Tiny", "example/a.wav": b"RIFF", "model.py": b"raise SystemExit", "fig/config.yaml": b"a: 1"}
ON_HUB = {"kind": "modelscope", "hub_id": HUB_ID, "revision": REVISION}
SETTINGS: dict[str, Any] = YAML(typ="safe").load(ROOT / "params.yaml")
MINIATURES = sorted(path.parent for path in ROOT.glob("zoo/*/config.yaml"))


@pytest.fixture
def files(tiny_checkpoint: Path) -> Files:
    """What a checkpoint needs."""
    return files_of(tiny_checkpoint) | {"tokens.json": b'["<unk>"]'}


@pytest.fixture
def trained_again(tiny_checkpoint: Path) -> bytes:
    """Other weights of the same shapes."""
    weights = {name: weight + 1 for name, weight in torch.load(tiny_checkpoint / "model.pt", weights_only=True).items()}
    return saved(weights)


def saved(weights: object) -> bytes:
    content = io.BytesIO()
    torch.save(weights, content)
    return content.getvalue()


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: Hub, files: Files):
    """A repository with one model, `tiny`, and a hub that has it."""
    monkeypatch.chdir(tmp_path)
    hub.models = {HUB_ID: {REVISION: files | OTHERS}}
    write_params(ON_HUB)


def write_params(*sources: Mapping[str, str], family: str = "fsmn_vad") -> None:
    line = {"family": family, "dataset": "vad_mixtures", "license": "MIT", "sources": list(sources)}
    settings = SETTINGS | {"models": SETTINGS["models"] | {"tiny": line}}
    Path("params.yaml").write_text(json.dumps(settings))  # which is YAML, and written sooner


def locked(name: str = "tiny") -> dict[str, Any]:
    content: dict[str, Any] = json.loads(layout.pin(name).read_text())
    return content


def entries(files: Mapping[str, bytes]) -> dict[str, dict[str, Any]]:
    return {name: {"size": len(files[name]), "sha256": sha256(files[name]).hexdigest()} for name in sorted(files)}


def test_writes_what_the_hub_lists_after_loading_it(hub: Hub, files: Files, capsys: pytest.CaptureFixture[str]):
    main(["pin", "tiny"])
    assert locked() == {"hub_id": HUB_ID, "revision": REVISION, "files": entries(files)}
    assert sorted(name for name, _ in hub.downloads) == sorted(files)
    said, size = capsys.readouterr().out, sum(map(len, files.values()))
    assert f"4 files, {size:,} bytes, from modelscope; left out: README.md, example/a.wav, fig/config.yaml" in said
    assert f"+ am.mvn: {len(files['am.mvn']):,} bytes, sha256 {sha256(files['am.mvn']).hexdigest()}" in said
    assert "tiny: gets the files from modelscope and loads them" in said
    assert not list(Path(".cache").glob("pin-*"))


def test_fetch_takes_what_was_pinned_and_downloads_nothing_again(hub: Hub, files: Files):
    main(["pin", "tiny"])
    downloads = list(hub.downloads)
    fetch.main(["tiny"])
    assert files_of(layout.checkpoint("tiny")) == files
    assert hub.downloads == downloads


def test_the_same_again_changes_nothing(capsys: pytest.CaptureFixture[str]):
    main(["pin", "tiny"])
    before = layout.pin("tiny").stat()
    capsys.readouterr()
    main(["pin", "tiny"])
    assert capsys.readouterr().out.endswith("pins/tiny.json is up to date\n")
    assert layout.pin("tiny").stat().st_mtime_ns == before.st_mtime_ns


def test_other_bytes_under_the_same_revision_are_an_alarm(hub: Hub, files: Files, trained_again: bytes):
    main(["pin", "tiny"])
    before = locked()
    hub.models[HUB_ID][REVISION] = files | {"model.pt": trained_again}
    found, was = (sha256(content).hexdigest() for content in (trained_again, files["model.pt"]))
    with pytest.raises(UserError, match=rf"revision v2\.0\.4\n.*! model\.pt: .* bytes, sha256 {found}, was .*{was}"):
        main(["pin", "tiny"])
    assert locked() == before
    main(["pin", "tiny", "--force"])
    assert locked()["files"]["model.pt"]["sha256"] == found


def test_another_revision_may_have_other_bytes(
    hub: Hub, files: Files, trained_again: bytes, capsys: pytest.CaptureFixture[str]
):
    main(["pin", "tiny"])
    kept = {name: content for name, content in files.items() if name != "tokens.json"}
    hub.models[HUB_ID]["v2.0.5"] = kept | {"model.pt": trained_again, "tokens.txt": b"a"}
    write_params(ON_HUB | {"revision": "v2.0.5"})
    with pytest.raises(UserError, match=r"is of someone/tiny\.model at v2\.0\.4, .* run `kiln pin tiny`"):
        fetch.main(["tiny"])
    main(["pin", "tiny"])
    fetch.main(["tiny"])
    marks = [line.split(":")[0] for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert marks[4:] == ["  ! model.pt", "  - tokens.json", "  + tokens.txt"]


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
    hub.models[HUB_ID][REVISION] = {"config.yaml": b"a: 1", "model_quant.onnx": b"onnx"}
    with pytest.raises(UserError, match=r"no model\.pt among config\.yaml, model_quant\.onnx"):
        main(["pin", "tiny"])


@pytest.mark.parametrize("name", ["tinny", "paraformer_larg"])
def test_an_unknown_model_is_named(name: str):
    with pytest.raises(UserError, match=rf"neither .* has a model '{name}'; did you mean"):
        main(["pin", name])


def test_a_model_of_the_catalogue_needs_no_line_in_params(hub: Hub):
    name = "iic/speech_paraformer-large_asr_nat-zh-cn-16k-common-vocab8404-pytorch"
    miniature = files_of(ROOT / "zoo/paraformer") | {"seg_dict": b"a b"}
    hub.models = {name: {"v2.0.4": miniature | {"example/asr_example.wav": b"RIFF"}}}
    main(["pin", "paraformer_large"])
    assert locked("paraformer_large")["hub_id"] == name
    assert locked("paraformer_large")["files"] == entries({n: c for n, c in miniature.items() if n != "README.md"})


def test_a_folder_of_the_repository(files: Files, trained_again: bytes, capsys: pytest.CaptureFixture[str]):
    write_params({"kind": "folder", "path": "zoo/tiny"})
    for file, content in (files | OTHERS).items():
        Path("zoo/tiny", file).parent.mkdir(parents=True, exist_ok=True)
        Path("zoo/tiny", file).write_bytes(content)
    main(["pin", "tiny"])
    assert locked() == {"files": entries(files)}
    fetch.main(["tiny"])
    assert files_of(layout.checkpoint("tiny")) == files
    Path("zoo/tiny/model.pt").write_bytes(trained_again)  # trained again: no revision, no alarm
    main(["pin", "tiny"])
    assert "! model.pt" in capsys.readouterr().out


def test_falls_over_to_the_next_source_and_says_so(hub: Hub, files: Files, capsys: pytest.CaptureFixture[str]):
    hub.models = {}
    write_params(ON_HUB, {"kind": "folder", "path": "mirror"})
    for file, content in files.items():
        Path("mirror").mkdir(exist_ok=True)
        Path("mirror", file).write_bytes(content)
    main(["pin", "tiny"])
    said = capsys.readouterr()
    assert "has no model 'someone/tiny.model'" in said.err
    assert "from folder" in said.out
    assert (locked()["hub_id"], locked()["revision"]) == (HUB_ID, REVISION)


LFS = b"version https://git-lfs.example/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1234\n"
PAGE = b"<!DOCTYPE html>\n<html><title>Sign in</title></html>"


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        pytest.param("model.pt", LFS, r"model\.pt is a Git LFS pointer", id="lfs"),
        pytest.param("am.mvn", LFS, r"am\.mvn is a Git LFS pointer", id="lfs-cmvn"),
        pytest.param("model.pt", PAGE, r"model\.pt is a web page", id="page"),
        pytest.param("config.yaml", PAGE, r"config\.yaml is a web page", id="page-config"),
        pytest.param("model.pt", b'{"Code": 404}', r"model\.pt is JSON, as a hub sends for an error", id="json"),
        pytest.param("model.pt", saved({"a": torch.zeros(9)})[:200], "its zip archive is truncated", id="truncated"),
        pytest.param("model.pt", saved(torch.nn.Linear(2, 2)), "a checkpoint must not run code", id="code"),
        pytest.param("model.pt", saved({"loss": np.float64(1)}), "NumPy object .* under 'loss'", id="numpy"),
        pytest.param("model.pt", saved([1, 2]), "found list, wanted a mapping of names to tensors", id="list"),
        pytest.param("model.pt", saved({"a": torch.zeros(2)}), "found none of the 24 that the network", id="another"),
        pytest.param("config.yaml", b"encoder: FSMN\n", "no model; the family fsmn_vad needs it", id="config"),
        pytest.param("am.mvn", b"<Nnet>\n", "found no <AddShift>", id="cmvn"),
    ],
)
@pytest.mark.parametrize("kind", ["hub", "folder"])
def test_what_is_no_checkpoint_is_not_pinned(hub: Hub, files: Files, kind: str, file: str, content: bytes, said: str):
    broken = files | {file: content}
    if kind == "hub":
        hub.models[HUB_ID][REVISION] = broken
    else:
        write_params({"kind": "folder", "path": "mirror"})
        Path("mirror").mkdir()
        for name, each in broken.items():
            Path("mirror", name).write_bytes(each)
    with pytest.raises(UserError, match=rf"^tiny: .*{said}") as e:
        main(["pin", "tiny"])
    first, second = str(e.value).splitlines()
    assert len(first) < 500
    assert second.endswith("nothing was pinned")
    assert ".cache" not in str(e.value)
    assert not layout.pin("tiny").exists()


@pytest.mark.parametrize("folder", MINIATURES, ids=lambda folder: folder.name)
def test_the_hub_serves_a_miniature(hub: Hub, folder: Path):
    hub.models[HUB_ID][REVISION] = files_of(folder)
    write_params(ON_HUB, family=folder.name.removesuffix("_realtime"))
    main(["pin", "tiny"])
    model, place = params.load().models["tiny"], layout.checkpoint("tiny")
    fetch.fetch("tiny", model, pins.demand("tiny", model), place)
    assert files_of(place) == {name: content for name, content in files_of(folder).items() if name != "README.md"}
