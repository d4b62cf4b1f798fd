"""The oldest ONNX Runtime of a report is one that ran the graph as it should, of the versions that `make` installs."""

from __future__ import annotations

import shutil
import sys
from importlib.metadata import version
from pathlib import Path

import onnx
import pytest

from stages.core import graphs
from stages.core.graphs import Axis, Graph, GraphSet, Tensor
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


def test_the_oldest_that_runs_it(artifact: Path):
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


def test_one_that_loads_it_and_computes_something_else_is_not_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    steps = Tensor(dtype="float32", shape=[1, 1, "steps"])
    axes = {"steps": Axis(min=1, opt=20, max=100)}
    graph = Graph(file="model.onnx", inputs={"x": steps}, outputs={"y": steps}, states={}, axes=axes)
    # Of a last window that is not full, 1.20.1 and older divide the sum by the length of full ones.
    sizes = [10]
    node = onnx.helper.make_node(
        "AveragePool", ["x"], ["y"], kernel_shape=sizes, strides=sizes, ceil_mode=1, count_include_pad=1
    )
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 1, None]) for name in "xy")
    pool = onnx.helper.make_graph([node], "g", [x], [y])
    onnx.save(
        onnx.helper.make_model(pool, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8),
        tmp_path / "model.onnx",
    )
    graphs.write(tmp_path, GraphSet(graphs={"model": graph}, cases={}))
    found = older.oldest(tmp_path)
    assert found["oldest"] == version("onnxruntime")
    assert set(found["refused"]) == set(older.versions())
    assert all("gives other numbers" in why for why in found["refused"].values())


def test_without_any_of_them_it_is_the_one_that_everything_is_measured_with(
    artifact: Path, monkeypatch, tmp_path: Path
):
    monkeypatch.chdir(tmp_path)
    assert older.oldest(artifact) == {"oldest": version("onnxruntime"), "refused": {}}


def test_one_that_aborts_is_no_failure_here(artifact: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(older, "RUN", "import os; os.abort()")
    found = older.oldest(artifact)
    assert found["oldest"] == version("onnxruntime")
    assert set(found["refused"].values()) == {"died of signal 6"}
