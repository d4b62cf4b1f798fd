"""What is on record of this machine is what is on this machine."""

from __future__ import annotations

import shutil
from importlib.metadata import version
from pathlib import Path

import pytest

from stages import environment
from stages.core.errors import UserError
from tests.workspace import ROOT


@pytest.fixture
def fields(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.chdir(tmp_path)
    for name in ("params.yaml", "plan.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "pins", tmp_path / "pins")
    environment.main([])
    return {p.name: p.read_text().strip() for p in (tmp_path / "artifacts" / "environment").iterdir()}


def test_versions_and_machine(fields: dict[str, str]):
    assert fields["onnxruntime"] == version("onnxruntime")
    assert fields["torch"] == version("torch")
    assert "cores" in fields["cpu"]
    assert fields["gpu"]


def test_every_file_that_dvc_yaml_depends_on_is_written(fields: dict[str, str]):
    text = "".join(place.read_text() for place in (ROOT / "stages" / "dag").rglob("dvc.yaml"))
    wanted = {
        line.split("artifacts/environment/")[1].strip()
        for line in text.splitlines()
        if "artifacts/environment/" in line
    }
    assert wanted <= set(fields)


def test_a_plan_that_is_not_what_params_ask_for_is_named_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    (tmp_path / "plan.yaml").write_text((ROOT / "plan.yaml").read_text().replace("cpu_int8", "cpu_int9"))
    with pytest.raises(UserError, match=r"plan\.yaml is not what params\.yaml asks for now; run `kiln plan`"):
        environment.main([])


def test_a_missing_lock_file_is_named_before_anything_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for name in ("params.yaml", "plan.yaml"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    with pytest.raises(UserError, match=r"no lock file pins/\w+\.json.*run `kiln pin \w+`"):
        environment.main([])


def test_a_package_that_is_not_there():
    assert environment.library("no-such-distribution") == "not installed"
