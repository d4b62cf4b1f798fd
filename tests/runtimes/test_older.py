"""The oldest ONNX Runtime of a report is one that loaded the graph, in the versions that `make` installs."""

from __future__ import annotations

import shutil
import sys
from importlib.metadata import version
from pathlib import Path

import onnx
import pytest

from stages.runtimes import older
from tests.workspace import ROOT

LOCKED = {path.stem for path in (ROOT / "stages" / "runtimes" / "older_versions").glob("*.txt")}


@pytest.fixture
def artifact(tiny_export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(ROOT)
    folder = tmp_path / "artifact"
    shutil.copytree(tiny_export, folder)
    return folder


def test_all_versions_are_here_that_this_python_has_wheels_of(artifact: Path):
    assert artifact
    found = older.versions()
    assert found == sorted(found, key=lambda name: int(name.split(".")[1]))
    assert set(found) == (LOCKED if sys.version_info < (3, 12) else set(found) & LOCKED)
    assert found


def test_the_oldest_that_loads(artifact: Path):
    assert older.oldest(artifact) == {"oldest": older.versions()[0], "refused": {}}


def test_one_that_refuses_is_named_with_its_reason(artifact: Path):
    model = onnx.load(artifact / "model.onnx")
    model.ir_version = 9  # which the oldest one does not know
    model.opset_import[0].version = 20
    onnx.save(model, artifact / "model.onnx")
    found = older.oldest(artifact)
    first = older.versions()[0]
    assert found["oldest"] != first
    assert "model.onnx" in found["refused"][first]
    assert str(artifact) not in found["refused"][first]


def test_without_any_of_them_it_is_the_one_that_everything_is_measured_with(
    artifact: Path, monkeypatch, tmp_path: Path
):
    monkeypatch.chdir(tmp_path)
    assert older.oldest(artifact) == {"oldest": version("onnxruntime"), "refused": {}}


def test_one_that_aborts_is_no_failure_here(artifact: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(older, "LOAD", "import os; os.abort()")
    found = older.oldest(artifact)
    assert found["oldest"] == version("onnxruntime")
    assert set(found["refused"].values()) == {"died of signal 6"}
