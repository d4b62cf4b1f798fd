"""Each fault of Python and of a library is planted: a module, a distribution or a program that is wrong."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from stages import decoding, environment, runtimes
from stages.doctor import libraries, matrix, torch_build
from tests.doctor import faults
from tests.doctor.conftest import ON_CPU, RTX, Plant, fake_torch
from tests.workspace import ROOT

pytestmark = pytest.mark.usefixtures("repository")
ONNXRUNTIME = "onnxruntime"
GPU = "NVIDIA H100 PCIe, 9.0, 580.65.06"


def distribution(plant: Plant, name: str, version: str) -> None:
    """Plant what an installer leaves of a package with the folder `onnxruntime`."""
    folder = f"{name.replace('-', '_')}-{version}.dist-info"
    plant(f"{folder}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    plant(f"{folder}/RECORD", "onnxruntime/__init__.py,,\n")


def require(target: str) -> None:
    """Make a target required in params.yaml, of every model that is built for it."""
    settings = YAML(typ="safe").load(Path("params.yaml"))
    settings["gates"][settings["targets"][target]["gate"]]["optional"] = {}
    settings["targets"][target]["required"] = True
    YAML().dump(settings, Path("params.yaml"))


def test_a_machine_with_all_it_needs_lacks_only_the_gpu():
    Path(".cache").symlink_to(ROOT / ".cache")  # where `make` puts the older ONNX Runtimes
    assert {finding.check: finding.level for finding in faults.of(libraries.check)} == dict.fromkeys(
        ("tensorrt_rtx", "tensorrt", "onnxruntime_cuda"), "warning"
    )


@pytest.mark.parametrize(("version", "is_taken"), [("3.10.14", False), ("3.11.0", True), ("3.14.0", False)])
def test_python(version: str, is_taken: bool, monkeypatch: pytest.MonkeyPatch):  # noqa: FBT001
    monkeypatch.setattr(platform, "python_version", lambda: version)
    found = [f for f in faults.of(libraries.check) if f.check == "python"]
    assert [(f.found, f.level) for f in found] == ([] if is_taken else [(version, "blocks")])


@pytest.mark.parametrize(
    ("version", "level"), [pytest.param("1.0", "warning", id="another"), pytest.param(None, "blocks", id="missing")]
)
def test_a_library_that_is_not_as_locked(version: str | None, level: str, monkeypatch: pytest.MonkeyPatch):
    said = {"onnxsim": version or "not installed"}
    monkeypatch.setattr(libraries, "library", lambda name: said.get(name) or environment.library(name))
    found = faults.one(libraries.check, named="onnxsim")
    assert (found.level, found.found) == (level, said["onnxsim"])
    assert found.wanted.startswith(next(iter(matrix.locked()["onnxsim"])))


def test_two_onnx_runtimes_share_a_folder(plant: Plant):
    distribution(plant, "onnxruntime-gpu", "1.31.1")
    found = faults.one(libraries.check, named=ONNXRUNTIME)
    assert (found.level, "onnxruntime-gpu 1.31.1" in found.found) == ("warning", True)
    assert "share one folder" in found.consequence
    assert "uninstall onnxruntime onnxruntime-gpu" in found.fix


def test_no_onnx_runtime(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(libraries, "distributions", list)
    found = faults.one(libraries.check, named=ONNXRUNTIME)
    assert (found.level, found.found) == ("blocks", "not installed")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("raise ImportError('libonnx.so: no such file')", "ImportError: libonnx.so: no such", id="broken"),
        pytest.param("import os; os.abort()", "died of signal 6", id="crashes"),
        pytest.param("import sys; sys.exit(3)", "no message", id="silent"),
        pytest.param("__version__ = '1'\nget_available_providers = lambda: ['X']", "1 with X", id="no-provider"),
    ],
)
def test_an_onnx_runtime_that_runs_nothing(plant: Plant, text: str, said: str):
    plant("onnxruntime.py", text)
    found = [f for f in faults.of(libraries.check) if f.check == ONNXRUNTIME and f.level == "blocks"]
    assert [said in f.found for f in found] == [True]


def test_another_onnx_runtime_is_loaded_than_the_lock_has(plant: Plant):
    plant("onnxruntime.py", f"__version__ = '1.20.1'\n{ON_CPU}")
    found = faults.one(libraries.check, named=ONNXRUNTIME)
    assert (found.level, found.found.startswith("1.20.1 is loaded, of onnxruntime ")) == ("warning", True)


def test_a_required_target_without_its_device_blocks():
    require("trt_rtx_fp16")
    found = faults.one(libraries.check, named="tensorrt_rtx")
    assert (found.level, found.found) == ("blocks", "engine built, nothing here to run it: no CUDA device")
    assert faults.one(libraries.check, named="tensorrt").level == "warning"


def test_a_decoder_without_its_libraries_blocks_the_pipelines_that_have_to_pass(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(decoding, "LIBRARIES", {"greedy": (), "wfst": ("no_such_library",)})
    assert not [finding for finding in faults.of(libraries.check) if finding.check == "decoding"]
    text = Path("params.yaml").read_text(encoding="utf-8")
    Path("params.yaml").write_text(text.replace("{kind: greedy}", "{kind: wfst, beam: 16}"), encoding="utf-8")
    found = faults.one(libraries.check, named="decoding")
    assert (found.level, found.consequence) == ("blocks", "builds of the pipeline speech are `unavailable`")
    assert found.found.startswith("the decoder wfst needs no_such_library; install the extra")
    assert not [finding for finding in faults.of(libraries.check, "fsmn_vad") if finding.check == "decoding"]


def test_tensorrt_without_its_libraries(plant: Plant):
    plant("tensorrt_rtx_bindings.py", "raise OSError('libtensorrt_rtx.so.1: cannot open shared object file')")
    [found, _] = [f for f in faults.of(libraries.check) if f.check == "tensorrt_rtx"]
    assert (found.level, found.found) == ("blocks", "OSError: libtensorrt_rtx.so.1: cannot open shared object file")


def test_a_gpu_that_tensorrt_rtx_does_not_know(plant: Plant):
    plant("tensorrt_rtx_bindings.py", RTX.replace("SM120", "SM121"))
    [found, _] = [f for f in faults.of(libraries.check) if f.check == "tensorrt_rtx"]
    assert (found.level, found.found, found.wanted) == ("blocks", "SM120", "SM75, SM86, SM89, SM121")


@pytest.mark.parametrize(
    ("gpu", "fix"),
    [
        pytest.param(GPU, "leave the target out", id="no-engine-runs-on-it"),
        pytest.param("NVIDIA T4, 7.5, 580.65.06", "engine.compute_capabilities", id="not-asked-for"),
    ],
)
def test_engines_that_the_gpu_here_does_not_load(program, gpu: str, fix: str):
    program("nvidia-smi", gpu)
    found = faults.one(libraries.check, named="tensorrt_rtx")
    assert (found.level, found.consequence) == ("blocks", "its engines do not load here")
    assert found.fix.startswith(fix)


def test_a_gpu_without_the_onnx_runtime_that_uses_it(program):
    program("nvidia-smi", GPU)
    found = faults.one(libraries.check, named="onnxruntime_cuda")
    assert (found.level, "without CUDAExecutionProvider" in found.found) == ("warning", True)
    require("cuda_fp16")
    assert faults.one(libraries.check, named="onnxruntime_cuda").level == "blocks"


def test_a_runtime_whose_library_breaks_is_a_line_and_no_traceback(monkeypatch: pytest.MonkeyPatch):
    def break_(_: str) -> None:
        raise OSError("libcudnn.so.9: cannot open shared object file")

    monkeypatch.setattr(runtimes, "why_unavailable", break_)
    found = faults.one(libraries.check, named="onnxruntime_cuda")
    assert (found.level, "OSError: libcudnn.so.9" in found.found) == ("blocks", True)


@pytest.mark.parametrize(
    ("file", "missing"),
    [
        pytest.param("modelscope/__init__.py", "modelscope/hub/snapshot_download", id="another-package-of-that-name"),
        pytest.param("modelscope/hub/__init__.py", "modelscope/hub/snapshot_download", id="too-old"),
    ],
)
def test_a_modelscope_without_downloads(plant: Plant, file: str, missing: str):
    plant("modelscope/__init__.py", "")
    plant(file, "")
    found = faults.one(libraries.check, named="modelscope")
    assert (found.level, missing in found.found) == ("warning", True)
    settings = YAML(typ="safe").load(Path("params.yaml"))
    settings["models"]["fsmn_vad"]["sources"] = settings["models"]["fsmn_vad"]["sources"][:1]
    YAML().dump(settings, Path("params.yaml"))
    assert faults.one(libraries.check, named="modelscope").level == "blocks"
    assert faults.one(libraries.check, "paraformer", named="modelscope").level == "warning"


def test_a_torch_that_does_not_start(plant: Plant):
    plant("torch.py", "raise OSError('libcudart.so.13: cannot open shared object file')")
    found = faults.one(torch_build.check)
    assert (found.level, found.found) == ("blocks", "OSError: libcudart.so.13: cannot open shared object file")


@pytest.mark.parametrize(
    ("gpu", "cuda", "kernels", "said"),
    [
        pytest.param(GPU, "13.0", ["sm_80", "sm_120"], "no kernel image is available", id="no-kernels"),
        pytest.param(GPU, "13.0", [], "no kernel image is available", id="none-at-all"),
        pytest.param(GPU, None, [], "it does not run", id="without-cuda"),
        pytest.param(GPU.replace("580.65", "550.54"), "13.0", ["sm_90"], "driver is too old", id="old-driver"),
    ],
)
def test_a_cuda_build_that_the_gpu_does_not_run_is_a_warning(plant, program, gpu, cuda, kernels, said):
    program("nvidia-smi", gpu)
    plant("torch.py", fake_torch("2.0", cuda, kernels))
    found = faults.one(torch_build.check)
    assert (found.level, said in found.consequence) == ("warning", True)
    assert found.consequence.startswith("Kiln's stages run torch on the CPU")


@pytest.mark.parametrize(
    ("capability", "kernels", "runs"),
    [
        ("9.0", ["sm_90"], True),
        ("8.9", ["sm_86"], True),  # the same major version, an older minor one
        ("8.6", ["sm_89"], False),
        ("9.0", ["sm_80"], False),
        ("12.0", ["compute_90"], True),  # translated when it is loaded
        ("9.0", ["compute_100"], False),
        ("9.0", ["sm_90a"], True),
        ("10.3", ["sm_100a"], False),  # of one GPU alone
        ("12.1", ["sm_75", "sm_120"], True),
        ("9.0", ["gfx90a"], False),
    ],
)
def test_which_kernels_a_gpu_runs(capability: str, kernels: list[str], runs: bool):  # noqa: FBT001
    assert torch_build.has_kernels(capability, kernels) is runs
