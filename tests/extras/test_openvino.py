"""OpenVINO's files compute what their graphs do, in fp32 and in the INT8 of a static recipe."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from stages import engine, runtimes
from stages.core import graphs
from stages.core.errors import UserError
from stages.core.parity import largest_differences
from stages.quantize import quantize
from stages.runtimes import onnxruntime
from tests.test_engine import SETTINGS
from tests.test_quantize import STATIC

INT8_TOLERANCE = 0.05  # of a probability: both round at the same scales, but not the same sums


@pytest.fixture(params=["fp32", "int8"])
def source(request: pytest.FixtureRequest, tiny_export: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    shutil.copytree(tiny_export, folder)
    graph = graphs.read(folder).graphs["model"]
    if request.param == "int8":
        feeds = [graphs.example_feeds(graph, {"feats_length": 40}, seed=seed) for seed in range(4)]
        quantize(tiny_export / graph.file, folder / graph.file, STATIC, feeds)
    return folder


def test_it_computes_what_its_graph_does(source: Path, tmp_path: Path, request: pytest.FixtureRequest):
    engine.build_all(source, tmp_path, "openvino", SETTINGS)
    assert runtimes.why_unavailable("openvino") is None
    graph_set = graphs.read(source)
    graph = graph_set.graphs["model"]
    found = runtimes.load(tmp_path, graph_set, "openvino", 1)["model"]
    expected = onnxruntime.network(source / graph.file, graph)
    limit = INT8_TOLERANCE if request.node.callspec.params["source"] == "int8" else 1e-4
    assert max(largest_differences(graph, expected, found).values()) < limit


def test_a_graph_that_is_refused_is_named(tiny_export: Path, tmp_path: Path):
    source = tmp_path / "source"
    shutil.copytree(tiny_export, source)
    (source / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(UserError, match=r"model\.onnx: OpenVINO .* could not convert it"):
        engine.build_all(source, tmp_path, "openvino", SETTINGS)
