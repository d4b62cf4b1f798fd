"""`.ort` files run as the graphs they were made of, and name the operators that they need."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from stages import engine, runtimes
from stages.core import children, graphs
from stages.core.errors import UserError
from stages.core.parity import largest_differences
from stages.runtimes import onnxruntime
from tests.test_engine import SETTINGS


def test_it_runs_as_its_graph_and_lists_its_operators(tiny_export: Path, tmp_path: Path):
    record = engine.convert(tiny_export, tmp_path, "ort_format", SETTINGS.seconds)
    assert record["unavailable"] is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.ort", "model.required_operators.config"]
    assert record["engines"]["model"]["engine_bytes"] == (tmp_path / "model.ort").stat().st_size
    graph_set = graphs.read(tiny_export)
    graph = graph_set.graphs["model"]
    found = runtimes.load(tmp_path, graph_set, "ort_format", 1)["model"]
    assert max(largest_differences(graph, onnxruntime.network(tiny_export / graph.file, graph), found).values()) < 1e-5
    listed = (tmp_path / "model.required_operators.config").read_text()
    assert "Softmax" in listed
    assert str(tmp_path) not in listed


def test_a_graph_that_is_refused_is_named(tiny_export: Path, tmp_path: Path):
    source = tmp_path / "source"
    shutil.copytree(tiny_export, source)
    (source / "model.onnx").write_bytes(b"no graph")
    record = engine.convert(source, tmp_path, "ort_format", SETTINGS.seconds)
    assert re.match(
        rf"{re.escape(str(source))}/model\.onnx: ONNX Runtime .* could not convert it", record["unavailable"]
    )
    assert record["engines"] == {}
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_converter_that_hangs_is_ended_and_said(tmp_path: Path):
    (tmp_path / "source").mkdir()
    os.mkfifo(tmp_path / "source" / graphs.FILE)  # whoever reads it waits
    record = engine.convert(tmp_path / "source", tmp_path, "ort_format", 1)
    why = f"{tmp_path}/source: the converter ran for over 1 s and was stopped (engine.seconds of params.yaml)"
    assert record == {"unavailable": why, "engines": {}}
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_converter_that_crashes_is_said(tiny_export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = children.run
    monkeypatch.setattr(
        children, "run", lambda _, seconds: run([sys.executable, "-c", "import os; os.abort()"], seconds)
    )
    record = engine.convert(tiny_export, tmp_path, "ort_format", 60)
    assert record["unavailable"] == f"{tiny_export}: the converter died of signal 6"


def test_what_is_no_refusal_of_the_graph_fails_the_stage(
    tiny_export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run, words = children.run, "error: no space left on the disk while writing it"
    monkeypatch.setattr(
        children, "run", lambda _, seconds: run([sys.executable, "-c", f"import sys; sys.exit({words!r})"], seconds)
    )
    with pytest.raises(UserError, match="conversion for ort_format failed: no space left on the disk"):
        engine.convert(tiny_export, tmp_path, "ort_format", 60)


def test_what_was_not_made_is_unavailable_with_the_reason(tmp_path: Path):
    (tmp_path / "engine.json").write_text('{"unavailable": "the converter refused it"}')
    assert runtimes.why_unavailable("ort_format", tmp_path) == "the converter refused it"
    (tmp_path / "engine.json").write_text('{"unavailable": null}')
    assert runtimes.why_unavailable("ort_format", tmp_path) is None
