"""The compatibility matrix says what was measured, what the lock has and what CI runs; the page says the same."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from stages.__main__ import main
from stages.doctor import matrix
from stages.doctor.matrix import Loads
from stages.runtimes import older
from tests.workspace import ROOT

PAGE = ROOT / "docs" / "compatibility.md"
LOAD = """import sys, onnxruntime as o
options = o.SessionOptions()
options.log_severity_level = 4
for line in sys.stdin:
    name, graph = line.split()
    try:
        o.InferenceSession(bytes.fromhex(graph), options, providers=["CPUExecutionProvider"])
        print(name)
    except Exception:
        pass
"""


def graph(opset: int, ir: int) -> str:
    """A graph that names these versions, in hexadecimal."""
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    body = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [value], [result])
    imports = [helper.make_opsetid("", opset)]
    return helper.make_model(body, opset_imports=imports, ir_version=ir).SerializeToString().hex()


def measured(folder: Path | None) -> Loads:
    """The newest opset and IR version that the ONNX Runtime in a folder, or the installed one, loads."""
    opsets, irs = range(17, onnx.defs.onnx_opset_version() + 1), range(8, onnx.IR_VERSION + 2)
    asked = [f"opset:{n} {graph(n, 8)}" for n in opsets] + [f"ir:{n} {graph(15, n)}" for n in irs]
    path = os.environ | ({"PYTHONPATH": str(folder)} if folder else {})
    command = [sys.executable, "-c", LOAD]
    done = subprocess.run(command, input="\n".join(asked), env=path, text=True, capture_output=True, check=True)
    loaded = [line.split(":") for line in done.stdout.split()]
    newest = {kind: max(int(n) for each, n in loaded if each == kind) for kind in ("opset", "ir")}
    return Loads(**newest)


def test_each_onnx_runtime_here_loads_what_the_matrix_says(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    found = {name: measured((older.FOLDER / name).resolve()) for name in older.versions()}
    found |= {version("onnxruntime"): measured(None)}
    assert found == {name: matrix.load().onnxruntime[name] for name in found}


def test_the_matrix_has_every_onnx_runtime_that_is_locked():
    locks = {path.stem for path in (ROOT / "stages" / "runtimes" / "older_versions").glob("*.txt")}
    assert set(matrix.load().onnxruntime) == locks | matrix.locked()["onnxruntime"]


def test_a_version_between_two_is_known_by_the_older_one():
    assert matrix.load().loads("1.17.9") == matrix.load().onnxruntime["1.17.3"]
    assert matrix.load().loads("1.99.0rc1") == matrix.load().onnxruntime[[*matrix.load().onnxruntime][-1]]
    assert matrix.load().loads("1.9.0") is None


def test_the_pythons_are_those_that_make_takes_and_ci_runs():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    oldest, newest = (matrix.version_key(part.lstrip("<>=")) for part in project.split(","))
    assert f"sys.exit(0 if {oldest} <= v <= ({newest[0]}, {newest[1] - 1})" in (ROOT / "Makefile").read_text()
    assert "make" in (ROOT / ".ci" / "run").read_text()  # whose Python is the one that runs this
    assert oldest <= sys.version_info[:2] < newest


def test_the_cuda_of_the_locked_torch_has_a_driver():
    [torch] = matrix.locked()["torch"]
    cuda = version("torch").partition("+cu")[2]
    assert version("torch").startswith(torch)
    assert not cuda or int(cuda[:2]) in matrix.load().cuda_drivers


def test_the_page_has_what_the_command_prints(capsys: pytest.CaptureFixture[str]):
    main(["doctor", "--matrix"])
    _, _, rest = PAGE.read_text(encoding="utf-8").partition("<!-- kiln doctor --matrix -->\n")
    assert rest.partition("<!-- end -->")[0] == capsys.readouterr().out


def test_its_measured_numbers_are_those_of_the_pages_that_measured_them():
    notes = (ROOT / "benchmarks" / "NOTES.md").read_text()
    speed, memory, disk = matrix.load().int8_speedup, matrix.load().memory, matrix.load().disk
    assert f"3.08x {speed.vnni}x on one thread" in notes
    assert f"gave 1.80x {speed.avx2}x and" in notes
    assert f"| {memory.per_checkpoint}x |" in notes
    readme = (ROOT / "README.md").read_text()
    assert f"{disk.data:g} GB of artifacts and caches | {memory.process:g} GB a process" in readme
    assert f"{disk.per_checkpoint:g} times its checkpoint" in readme
