"""OpenVINO's files compute what their graphs do: in fp32, a static recipe's INT8, and bf16, in which nothing counts."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import openvino
import pytest

from stages import engine, runtimes
from stages.core import graphs
from stages.core.errors import UserError
from stages.core.files import write_json
from stages.core.params.recipes import BFloat16Recipe, Recipe
from stages.core.params.section import Runtime
from stages.core.parity import largest_differences
from stages.quantize import quantize
from stages.runtimes import onnxruntime
from tests.quantization.test_counting import CONSTANTS, GRAPHS, LONG, build
from tests.test_engine import SETTINGS
from tests.test_quantize import STATIC

BF16 = BFloat16Recipe(kind="bfloat16")
needs_bf16 = pytest.mark.skipif(
    "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"),
    reason="a processor with AMX or AVX512-BF16 runs it",
)


def convert(tiny_export: Path, folder: Path, recipe: Recipe) -> Path:
    """Quantize the tiny detector's graph into a folder."""
    shutil.copytree(tiny_export, folder)
    graph = graphs.read(folder).graphs["model"]
    feeds = [graphs.example_feeds(graph, {"feats_length": 40}, seed=seed) for seed in range(4)]
    quantize(tiny_export / graph.file, folder / graph.file, recipe, feeds)
    return folder


def difference(original: Path, source: Path, folder: Path, runtime: Runtime) -> float:
    """Build a runtime's files of a graph, and compare what they compute with an original in ONNX Runtime."""
    engine.build_all(source, folder, runtime, SETTINGS)
    graph_set = graphs.read(source)
    graph = graph_set.graphs["model"]
    found = runtimes.load(folder, graph_set, runtime, 1)["model"]
    return max(largest_differences(graph, onnxruntime.network(original / graph.file, graph), found).values())


def test_fp32_is_rounded_nowhere(tiny_export: Path, tmp_path: Path):
    assert runtimes.why_unavailable("openvino") is None
    assert difference(tiny_export, tiny_export, tmp_path, "openvino") < 1e-4


def test_int8_is_that_of_its_recipe(tiny_export: Path, tmp_path: Path):
    source = convert(tiny_export, tmp_path / "source", STATIC)
    # Of a probability: both round at the same scales, but not the same sums.
    assert difference(source, source, tmp_path, "openvino") < 0.05


@needs_bf16
def test_bf16_rounds_to_eight_bits(tiny_export: Path, tmp_path: Path):
    source = convert(tiny_export, tmp_path / "source", BF16)
    assert runtimes.why_unavailable("openvino_bf16") is None
    assert 2**-12 < difference(tiny_export, source, tmp_path, "openvino_bf16") < 2**-5


@needs_bf16
@pytest.mark.parametrize("body", [pytest.param(body, id=name.replace(" ", "-")) for name, body in GRAPHS.items()])
def test_what_counts_or_places_behind_a_bf16_layer_is_as_in_fp32(body: str, tmp_path: Path):
    feeds = {"x": (np.random.default_rng(0).random((1, LONG, 16)) < 0.5).astype(np.float32)}
    layer = "first = MatMul(x, same)\n" + body.replace("(x", "(first")  # 0 and 1 are exact in bf16, not their sums
    original = build(tmp_path / "original.onnx", layer, CONSTANTS | {"same": np.eye(16, dtype=np.float32)})
    quantize(original, describe(tmp_path / "source") / "model.onnx", BF16, [feeds])
    sidecar: dict[str, Any] = engine.build_all(tmp_path / "source", tmp_path, "openvino_bf16", SETTINGS)["model"]
    found = runtimes.load(tmp_path, graphs.read(tmp_path / "source"), "openvino_bf16", 1)["model"](feeds)
    (expected,) = onnxruntime.session(original).run(None, feeds)
    assert sidecar["precisions"]["bf16"] > 0
    np.testing.assert_allclose(found["y"], expected, atol=1e-3)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("frames", [1, 99, 100, 101, 250])
def test_an_average_may_be_of_less_than_a_window(frames: int, threads: int, tmp_path: Path):
    """CAM++ has windows of two seconds, and hears shorter recordings."""
    body = "t = Transpose<perm=[0, 2, 1]>(x)\n y = AveragePool<kernel_shape=[100], strides=[100], ceil_mode=1>(t)"
    original = build(describe(tmp_path / "source") / "model.onnx", body, {})
    engine.build_all(tmp_path / "source", tmp_path, "openvino", SETTINGS)
    feeds = {"x": np.random.default_rng(0).standard_normal((1, frames, 16), np.float32)}
    found = runtimes.load(tmp_path, graphs.read(tmp_path / "source"), "openvino", threads)["model"](feeds)
    (expected,) = onnxruntime.session(original).run(None, feeds)
    np.testing.assert_allclose(found["y"], expected, atol=1e-6)


def describe(folder: Path) -> Path:
    """Make a folder that describes a graph from an x of (1, frames, 16) to a y."""
    tensor = {"dtype": "float32", "shape": [1, "frames", 16]}
    axes = {"frames": {"min": 1, "opt": 20, "max": 3000}}
    graph = {"file": "model.onnx", "inputs": {"x": tensor}, "outputs": {"y": tensor}, "states": {}, "axes": axes}
    folder.mkdir()
    write_json(folder / graphs.FILE, {"graphs": {"model": graph}, "cases": {}})
    return folder


def test_a_processor_without_bf16_is_named_with_what_is_wanted(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(openvino, "Core", lambda: SimpleNamespace(get_property=lambda *_: ["INT8", "FP32"]))
    why = "OpenVINO finds FP32, INT8 on this processor, wanted BF16: AMX or AVX512-BF16"
    assert runtimes.why_unavailable("openvino_bf16") == engine.why_not_built("openvino_bf16") == why
    assert runtimes.why_unavailable("openvino") is None


def test_a_graph_that_is_refused_is_named(tiny_export: Path, tmp_path: Path):
    source = tmp_path / "source"
    shutil.copytree(tiny_export, source)
    (source / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(UserError, match=r"model\.onnx: OpenVINO .* could not convert it"):
        engine.build_all(source, tmp_path, "openvino", SETTINGS)


def test_a_file_that_is_broken_is_named_with_openvino_s_reason(tiny_export: Path, tmp_path: Path):
    (tmp_path / "model.xml").write_text("no file of OpenVINO's")
    with pytest.raises(UserError, match=r"model\.xml: OpenVINO .* cannot load it: RuntimeError: Unable to read"):
        runtimes.load(tmp_path, graphs.read(tiny_export), "openvino", 1)
