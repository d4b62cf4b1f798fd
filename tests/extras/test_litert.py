"""LiteRT's files compute what their graphs do, at every length; what its converter refuses is said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

from stages import engine, runtimes
from stages.core import graphs
from stages.core.errors import UserError
from stages.core.parity import largest_differences
from stages.runtimes import litert, onnxruntime
from tests.test_engine import SETTINGS


@pytest.fixture(scope="module")
def built(tiny_export: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("litert")
    engine.build_all(tiny_export, folder, "litert", SETTINGS)
    return folder


def test_it_computes_what_its_graph_does_whatever_the_order_of_lengths(built: Path, tiny_export: Path):
    assert runtimes.why_unavailable("litert") is None
    graph_set = graphs.read(tiny_export)
    graph = graph_set.graphs["model"]
    found = runtimes.load(built, graph_set, "litert", 1)["model"]
    expected = onnxruntime.network(tiny_export / graph.file, graph)
    assert max(largest_differences(graph, expected, found).values()) < 1e-4
    for length in (1, 100, 20, 20, 7):
        feeds = graphs.example_feeds(graph, {"feats_length": length}, seed=length)
        feeds |= {
            name: np.random.default_rng(0).standard_normal(feeds[name].shape, np.float32) for name in graph.states
        }
        ours, theirs = expected(feeds), found(feeds)
        assert {name: array.shape for name, array in theirs.items()} == {name: a.shape for name, a in ours.items()}
        assert all(np.allclose(theirs[name], ours[name], atol=1e-4) for name in ours)


def test_what_was_made_says_by_which_versions(tiny_export: Path, tmp_path: Path):
    sidecar = engine.build_all(tiny_export, tmp_path, "litert", SETTINGS)["model"]
    assert str(sidecar["converter"]).startswith("onnx2tf ")
    assert sidecar["version"]
    assert (tmp_path / "model.tflite").stat().st_size == sidecar["engine_bytes"]
    json.dumps(sidecar)


def test_what_the_converter_refuses_is_named_with_its_reason(tmp_path: Path):
    place = tmp_path / "model.onnx"
    head = '<ir_version: 8, opset_import: ["" : 14, "com.microsoft" : 1]>'
    graph = "g (float[1,T,4] x, float[4] b) => (float[1,T,4] y) { y = com.microsoft.BiasGelu(x, b) }"
    onnx.save(onnx.parser.parse_model(head + graph), place)
    why = r"model\.onnx: onnx2tf could not convert it: .*No module named 'onnx2tf\.ops\.BiasGelu'"
    with pytest.raises(UserError, match=why):
        litert.build(place, tmp_path / "model.tflite")


def test_a_file_with_other_inputs_than_its_graph_is_refused(built: Path, tiny_export: Path):
    graph_set = graphs.read(tiny_export)
    graph = graph_set.graphs["model"]
    others = {"audio" if name == "speech" else name: tensor for name, tensor in graph.inputs.items()}
    renamed = {"model": graph.model_copy(update={"inputs": others})}
    with pytest.raises(UserError, match=r"found inputs .*speech.*, wanted audio, .*operators of TensorFlow's own"):
        litert.load(built, graph_set.model_copy(update={"graphs": renamed}))


def test_where_it_is_not_installed_it_is_unavailable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(litert, "CONVERTER", tmp_path)
    assert "make .venv/extra-litert" in (runtimes.why_unavailable("litert") or "")


def test_a_file_that_is_broken_is_named(built: Path, tiny_export: Path, tmp_path: Path):
    shutil.copytree(built, tmp_path / "broken")
    (tmp_path / "broken" / "model.tflite").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"model\.tflite: LiteRT cannot load it"):
        runtimes.load(tmp_path / "broken", graphs.read(tiny_export), "litert", 1)
