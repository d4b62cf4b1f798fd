"""Faults of checkpoints, graphs and lock files are planted in a repository in which nothing was built."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper
from ruamel.yaml import YAML

from stages.commands import heal
from stages.core import layout
from stages.doctor import checkpoints, graphs, locks
from stages.environment import library
from stages.runtimes import onnxruntime_cuda
from tests.doctor import faults

pytestmark = pytest.mark.usefixtures("repository")
CONFIG = Path("zoo/paraformer/config.yaml")
INT8 = layout.graphs("paraformer", "dense", "int8")


def edit(path: Path, **changes: object) -> None:
    """Change keys of a YAML file, at its top; None removes one."""
    settings = YAML(typ="safe").load(path)
    settings = {key: value for key, value in (settings | changes).items() if value is not None}
    YAML().dump(settings, path)


def test_what_is_as_it_should_be():
    assert faults.of(checkpoints.check) == faults.of(graphs.check) == faults.of(locks.check) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        pytest.param({"frontend_conf": None}, "no frontend_conf", id="no-frontend-conf"),
        pytest.param({"model": "Whisper"}, "model: found 'Whisper'", id="another-model"),
        pytest.param({"encoder_conf": 3}, "encoder_conf: found 3", id="no-section"),
    ],
)
def test_a_configuration_that_the_family_cannot_build(changes: dict[str, object], said: str):
    edit(CONFIG, **changes)
    found = faults.one(checkpoints.check)
    assert (found.check, found.level, said in found.found) == ("paraformer", "blocks", True)
    assert str(CONFIG) in found.found
    assert faults.of(checkpoints.check, "ct_transformer") == []


def test_a_fetched_checkpoint_counts_not_its_source():
    edit(CONFIG, frontend_conf=None)
    fetched = layout.checkpoint("paraformer") / "config.yaml"
    fetched.parent.mkdir(parents=True)
    fetched.write_text("model: [")
    assert faults.one(checkpoints.check).found.startswith(str(fetched))


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        pytest.param("configuration.json", json.dumps({"model": {"remote_code": "./m.py"}}), "remote_code", id="hub"),
        pytest.param("config.json", json.dumps({"auto_map": {"AutoModel": "m.M"}}), "auto_map", id="transformers"),
        pytest.param("model.py", "import os\n", "model.py", id="code-beside-it"),
        pytest.param("requirements.txt", "x\n", "requirements.txt", id="packages-to-install"),
    ],
)
def test_a_checkpoint_that_wants_its_own_code_run(file: str, text: str, said: str):
    (CONFIG.parent / file).write_text(text)
    found = faults.one(checkpoints.check)
    assert (found.check, found.level, said in found.found) == ("paraformer", "warning", True)
    assert "never run" in found.consequence


def test_remote_code_in_the_configuration_of_funasr():
    edit(CONFIG, trust_remote_code=True)
    assert faults.one(checkpoints.check).found == "config.yaml: trust_remote_code"
    edit(CONFIG, trust_remote_code=False)
    assert faults.of(checkpoints.check) == []


def test_settings_that_cannot_be_read_hide_nothing():
    (CONFIG.parent / "configuration.json").write_text("{")
    (CONFIG.parent / "model.py").write_text("")
    assert faults.one(checkpoints.check).found == "model.py"


def test_a_model_without_a_lock_file():
    layout.pin("paraformer").unlink()
    found = faults.one(checkpoints.check)
    assert (found.check, found.level, found.fix) == ("paraformer", "blocks", "kiln pin paraformer")


def test_what_no_build_starts_without_is_looked_for_whichever_model_is_asked_about():
    settings = YAML(typ="safe").load(Path("params.yaml"))
    speech = {"kind": "modelscope", "path": "pins/speech.json", "hub_id": "a/speech", "revision": "v1.0.0"}
    settings["datasets"]["speech"] = speech
    YAML().dump(settings, Path("params.yaml"))
    layout.pin("paraformer").unlink()
    assert [f.check for f in faults.of(checkpoints.check, "ct_transformer")] == ["paraformer", "speech"]


def graph(place: Path, opset: int, ir: int) -> None:
    """Write a graph that names these versions."""
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    body = helper.make_graph([], "g", [value], [value])
    place.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(body, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir), place)


@pytest.mark.parametrize(
    ("opset", "ir", "is_loaded"), [(19, 9, True), (20, 9, False), (19, 10, False)], ids=["both", "opset", "ir"]
)
def test_a_graph_that_the_installed_runtime_does_not_load(
    opset: int,
    ir: int,
    is_loaded: bool,  # noqa: FBT001
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(graphs, "library", lambda _: "1.16.1")
    graph(INT8 / "model.onnx", opset, ir)
    found = faults.of(graphs.check)
    assert [(f.level, f.found) for f in found] == (
        [] if is_loaded else [("blocks", f"{INT8}/model.onnx: opset {opset}, IR {ir}")]
    )
    assert faults.of(graphs.check, "ct_transformer") == []


def test_a_version_between_two_known_ones_may_load_more_than_the_older(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(graphs, "library", lambda _: "1.16.3")
    graph(INT8 / "model.onnx", 20, 9)
    assert faults.one(graphs.check).level == "warning"


def test_a_graph_for_cuda_is_held_to_the_onnx_runtime_that_has_it(monkeypatch: pytest.MonkeyPatch):
    graph(layout.graphs("fsmn_vad", "dense", "fp16") / "model.onnx", 21, 9)
    assert faults.of(graphs.check) == []  # the extra is not installed: nothing would load it
    monkeypatch.setattr(onnxruntime_cuda, "version", lambda: "1.17.3")
    assert faults.one(graphs.check).wanted == "at most opset 20, IR 9: ONNX Runtime 1.17.3"


def test_a_graph_that_is_no_onnx():
    graph(INT8 / "model.onnx", 18, 8)
    (INT8 / "model.onnx").write_bytes(b"\xff" * 100)
    found = faults.one(graphs.check)
    assert (found.level, found.found.startswith(f"{INT8}/model.onnx cannot be read")) == ("blocks", True)


def test_an_opset_that_the_installed_runtime_does_not_load(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(graphs, "library", lambda _: "1.16.1")
    edit(Path("params.yaml"), export={"opset": 20})
    found = faults.one(graphs.check)
    assert (found.level, found.found) == ("blocks", "export.opset 20")
    assert found.wanted == "at most 19, the newest of ONNX Runtime 1.16.1"


def test_a_runtime_that_is_older_than_all_that_is_known(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(graphs, "library", lambda _: "1.2.0")
    assert faults.one(graphs.check).level == "warning"
    monkeypatch.setattr(graphs, "library", library)
    assert faults.of(graphs.check) == []


def test_a_torn_lock_file_is_named_and_stays():
    Path("stages/dvc.lock").write_text("schema: '2.0'\nsta")
    heal.RWLOCK.parent.mkdir(parents=True)
    heal.RWLOCK.write_text("{")
    found = faults.of(locks.check)
    assert [f.found for f in found] == [f"{path}: torn by a kill" for path in ("stages/dvc.lock", heal.RWLOCK)]
    assert {f.level for f in found} == {"warning"}
    assert Path("stages/dvc.lock").exists()


def test_a_key_that_is_none_ends_every_build(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("KILN_SIGNING_KEY", "my/key.pem")
    found = faults.one(locks.check)
    assert (found.check, found.level, found.fix) == ("signing key", "blocks", "unset KILN_SIGNING_KEY")
    assert "my/key.pem" in found.found
    monkeypatch.setenv("KILN_SIGNING_KEY", "")  # as CI has a secret that a fork is not given
    assert faults.of(locks.check) == []


def test_links_in_the_place_of_artifacts():
    Path(".dvc/config.local").write_text("[cache]\n    type = symlink\n")
    found = faults.one(locks.check)
    assert (found.check, found.level, "found symlink" in found.found) == ("dvc", "blocks", True)


def test_a_plan_that_params_do_not_ask_for():
    Path("plan.yaml").write_text("plan: {}\n")
    found = faults.one(locks.check)
    assert (found.check, found.level, "run `kiln plan`" in found.found) == ("plan", "warning", True)
