"""Engines are built ahead of time without a GPU, described by a sidecar, and what cannot be is said."""

from __future__ import annotations

import platform
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from stages import engine, runtimes
from stages.core import graphs
from stages.core.errors import UserError
from stages.core.files import sha256
from stages.core.graphs import Graph
from stages.core.params import EngineParams
from stages.core.params.recipes import BFloat16Recipe, Float16Recipe, Recipe
from stages.quantize import quantize
from stages.runtimes import tensorrt
from tests.quantization.test_counting import CONSTANTS, GRAPHS, build

FP16 = Float16Recipe(kind="float16")
SETTINGS = EngineParams(compute_capabilities=["SM86", "SM89"], workspace_mib=64, seconds=900)
needs_rtx = pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"), reason="TensorRT-RTX has wheels for x86-64 Linux only"
)


@pytest.fixture
def fp16(tiny_export: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_export, tmp_path / "fp16")
    quantize(tiny_export / "model.onnx", tmp_path / "fp16" / "model.onnx", FP16)
    return tmp_path / "fp16"


@needs_rtx
def test_an_rtx_engine_says_what_it_is(fp16: Path, tmp_path: Path):
    graph = graphs.read(fp16).graphs["model"]
    sidecar = engine.build(graph, fp16 / graph.file, tmp_path / "model.engine", "tensorrt_rtx", SETTINGS)
    assert sidecar["compute_capabilities"] == ["SM86", "SM89"]
    assert sidecar["profile"] == {"feats_length": {"min": 1, "opt": 20, "max": 6000}}
    assert sidecar["inputs"] == list(graph.inputs)
    assert sidecar["onnx_sha256"] == sha256(fp16 / graph.file)
    assert sidecar["engine_sha256"] == sha256(tmp_path / "model.engine")
    assert sidecar["version"]


@needs_rtx
@pytest.mark.parametrize("recipe", [FP16, BFloat16Recipe(kind="bfloat16")], ids=["fp16", "bf16"])
def test_an_engine_may_count_and_place_in_fp32(tmp_path: Path, recipe: Recipe):
    placed = GRAPHS["frequencies by a product"] + "\n p = MatMul(y, v)\n h = Add(x, p)\n "
    counted = "c = MatMul(h, w)\n a = Squeeze(c, two)\n b = CumSum(a, one)\n z = Floor(b)"
    source = build(tmp_path / "source.onnx", placed + counted, CONSTANTS | {"v": np.ones((3, 16), np.float32)}, "z")
    quantize(source, tmp_path / "half.onnx", recipe, [{"x": np.zeros((1, 40, 16), np.float32)}])
    tensor = {"dtype": "float32", "shape": [1, "frames", 16]}
    axes = {"frames": {"min": 1, "opt": 20, "max": 3000}}
    described = {"file": "half.onnx", "inputs": {"x": tensor}, "outputs": {"z": tensor}, "states": {}, "axes": axes}
    graph = Graph.model_validate(described)
    sidecar = engine.build(graph, tmp_path / "half.onnx", tmp_path / "model.engine", "tensorrt_rtx", SETTINGS)
    assert sidecar["outputs"] == ["z"]


@needs_rtx
def test_an_unknown_compute_capability_lists_the_known(fp16: Path, tmp_path: Path):
    graph = graphs.read(fp16).graphs["model"]
    settings = SETTINGS.model_copy(update={"compute_capabilities": ["SM42"]})
    with pytest.raises(UserError, match=r"found .SM42.; tensorrt_rtx .* has .*SM86"):
        engine.build(graph, fp16 / graph.file, tmp_path / "model.engine", "tensorrt_rtx", settings)


@needs_rtx
def test_a_graph_with_an_operator_that_tensorrt_lacks_is_refused(tiny_export: Path, tmp_path: Path):
    from tests.test_quantize import INT8

    graph = graphs.read(tiny_export).graphs["model"]
    quantize(tiny_export / "model.onnx", tmp_path / "q.onnx", INT8)
    with pytest.raises(UserError, match=r"tensorrt_rtx .* could not build an engine"):
        engine.build(graph, tmp_path / "q.onnx", tmp_path / "model.engine", "tensorrt_rtx", SETTINGS)
    assert not (tmp_path / "model.engine").exists()


def test_current_alone_is_the_gpu_of_this_machine():
    settings = SETTINGS.model_copy(update={"compute_capabilities": [tensorrt.CURRENT]})
    assert tensorrt._device_options(None, settings) == {"use_gpu": True}


def test_without_a_cuda_device_both_are_unavailable_and_say_why(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tensorrt, "gpu", lambda: "none")
    assert runtimes.why_unavailable("onnxruntime") is None
    assert "CUDA device" in (runtimes.why_unavailable("tensorrt_rtx") or "CUDA device")
    assert runtimes.why_unavailable("tensorrt")
