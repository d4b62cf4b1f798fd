"""ONNX Runtime on CUDA says why it cannot work, and is the one of the extra where that is installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from stages import runtimes
from stages.core import graphs, params, plan
from stages.core.errors import UserError
from stages.runtimes import onnxruntime, onnxruntime_cuda
from tests.workspace import ROOT

TEXT = (ROOT / "params.yaml").read_text()
STAND_IN = """
__version__ = "9.9.9"
def get_available_providers(): return ["CUDAExecutionProvider"]
def preload_dlls(): print("libraries loaded")
"""
ASK = """
from stages.runtimes import onnxruntime_cuda
onnxruntime_cuda.why_no_gpu = lambda: None
print(onnxruntime_cuda.why_unavailable())
import onnxruntime
print(onnxruntime.__version__, onnxruntime_cuda.version())
"""


def test_without_a_device_it_is_unavailable(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(onnxruntime_cuda, "why_no_gpu", lambda: "no CUDA device")
    assert runtimes.why_unavailable("onnxruntime_cuda") == "no CUDA device"


def test_with_a_device_and_without_the_extra_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(onnxruntime_cuda, "why_no_gpu", lambda: None)
    assert "make .venv/extra-cuda" in (runtimes.why_unavailable("onnxruntime_cuda") or "")
    assert onnxruntime_cuda.version() is None


@pytest.mark.filterwarnings("ignore:Specified provider:UserWarning")
def test_what_falls_back_to_the_cpu_is_refused(tiny_export: Path):
    with pytest.raises(UserError, match=r"model\.onnx: .*CUDAExecutionProvider"):
        runtimes.load(tiny_export, graphs.read(tiny_export), "onnxruntime_cuda", threads=1)
    onnxruntime.load(tiny_export, graphs.read(tiny_export))  # the CPU's own goes on


def test_the_extra_is_imported_in_the_place_of_the_cpu_s(tmp_path: Path):
    folder = tmp_path / onnxruntime_cuda.FOLDER
    (folder / "onnxruntime").mkdir(parents=True)
    (folder / "onnxruntime" / "__init__.py").write_text(STAND_IN)
    (folder / "onnxruntime_gpu-9.9.9.dist-info").mkdir()
    metadata = "Metadata-Version: 2.1\nName: onnxruntime-gpu\nVersion: 9.9.9\n"
    (folder / "onnxruntime_gpu-9.9.9.dist-info" / "METADATA").write_text(metadata)
    done = subprocess.run(
        [sys.executable, "-c", ASK],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["libraries loaded", "None", "9.9.9 9.9.9"]


def test_it_runs_the_recipe_s_own_graphs_and_has_no_engine():
    tables = plan.derive(params.parse(TEXT, "params.yaml"))
    assert tables.builds["fsmn_vad-cuda_fp16"].artifact == "fsmn_vad/dense/fp16"
    assert not [name for name in tables.engine if name.endswith("-cuda_fp16")]


def test_int8_is_refused_before_anything_is_built():
    text = TEXT.replace(
        "onnxruntime_cuda, variant: dense, graph: fp16", "onnxruntime_cuda, variant: dense, graph: int8"
    )
    with pytest.raises(UserError, match=r"targets\.cuda_fp16: recipe 'int8' is for a CPU.*use a float16 recipe"):
        params.parse(text, "params.yaml")
