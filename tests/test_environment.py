"""What is on record of this machine is what is on this machine."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import pytest

from stages import environment
from tests.workspace import ROOT


@pytest.fixture
def fields(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    environment.main([])
    return {p.name: p.read_text().strip() for p in (tmp_path / "artifacts" / "environment").iterdir()}


def test_versions_and_machine(fields: dict[str, str]):
    assert fields["onnxruntime"] == version("onnxruntime")
    assert fields["torch"] == version("torch")
    assert "cores" in fields["cpu"]
    assert fields["gpu"]


def test_every_file_that_dvc_yaml_depends_on_is_written(fields: dict[str, str]):
    text = (ROOT / "dvc.yaml").read_text()
    wanted = {
        line.split("artifacts/environment/")[1].strip()
        for line in text.splitlines()
        if "artifacts/environment/" in line
    }
    assert wanted <= set(fields)


def test_a_package_that_is_not_there():
    assert environment.library("no-such-distribution") == "not installed"
