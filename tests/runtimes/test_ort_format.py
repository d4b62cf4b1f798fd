"""`.ort` files run as the graphs they were made of, and name the operators that they need."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from stages import engine, runtimes
from stages.core import graphs
from stages.core.errors import UserError
from stages.core.parity import largest_differences
from stages.runtimes import onnxruntime
from tests.test_engine import SETTINGS


def test_it_runs_as_its_graph_and_lists_its_operators(tiny_export: Path, tmp_path: Path):
    sidecars = engine.build_all(tiny_export, tmp_path, "ort_format", SETTINGS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.ort", "model.required_operators.config"]
    assert sidecars["model"]["engine_bytes"] == (tmp_path / "model.ort").stat().st_size
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
    with pytest.raises(UserError, match=r"model\.onnx: ONNX Runtime .* could not convert it"):
        engine.build_all(source, tmp_path, "ort_format", SETTINGS)


def test_what_was_not_made_is_unavailable_with_the_reason(tmp_path: Path):
    (tmp_path / "engine.json").write_text('{"unavailable": "the converter refused it"}')
    assert runtimes.why_unavailable("ort_format", tmp_path) == "the converter refused it"
    (tmp_path / "engine.json").write_text('{"unavailable": null}')
    assert runtimes.why_unavailable("ort_format", tmp_path) is None
