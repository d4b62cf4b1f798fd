"""How a stage ends: one message and an exit status for mistakes, a traceback for bugs, and never outliving dvc."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.workspace import ROOT


def run(body: str) -> subprocess.CompletedProcess[str]:
    code = f"from stages.core.errors import *\ndef main(argv):\n    {body}\nentrypoint(main)"
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        pytest.param("return", 0, "", id="success"),
        pytest.param("raise UserError('x: found 1, wanted 2')", 1, "error: x: found 1, wanted 2\n", id="mistake"),
        pytest.param(
            "raise OSError(28, 'No space left on device', 'out.onnx')",
            1,
            "no space left on the disk while writing out.onnx",
            id="disk-full",
        ),
        pytest.param("raise KeyboardInterrupt", 130, "interrupted", id="ctrl-c"),
        pytest.param("key_from(['a', 'b'], 'export', ['x'])", 2, "usage: python -m stages.export KEY", id="usage"),
        pytest.param("key_from(['x-dens'], 'export', ['x-dense'])", 1, "did you mean 'x-dense'?", id="unknown-key"),
    ],
)
def test_exit_status_and_message(body: str, status: int, said: str):
    done = run(body)
    assert done.returncode == status
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_bug_keeps_its_traceback():
    done = run("1 / 0")
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr


@pytest.fixture
def dvc(tmp_path: Path) -> Path:
    """A program called dvc that runs a stage in a shell: that writes its process id, and `over` two seconds later."""
    stage, dvc = tmp_path / "stage.py", tmp_path / "dvc"
    stage.write_text(
        "import os, pathlib, sys, time\nfrom stages.core.errors import entrypoint\n"
        "def main(argv):\n    pathlib.Path('pid').write_text(str(os.getpid()))\n    time.sleep(2)\n"
        "    pathlib.Path('over').touch()\nentrypoint(main)\n"
    )
    dvc.write_text(f"import subprocess\nsubprocess.run('{sys.executable} {stage}; true', shell=True)\n")
    return dvc


def start(*command: str | Path, cwd: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([*command], cwd=cwd, env={**os.environ, "PYTHONPATH": str(ROOT)}, start_new_session=True)


def written_pid(folder: Path) -> psutil.Process:
    wait_for(lambda: (folder / "pid").exists() and (folder / "pid").read_text() != "")
    return psutil.Process(int((folder / "pid").read_text()))


def wait_for_end_of(process: psutil.Process) -> None:
    wait_for(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)


def test_a_stage_dies_with_the_dvc_that_started_it(dvc: Path):
    parent = start(sys.executable, dvc, cwd=dvc.parent)
    child = written_pid(dvc.parent)
    parent.kill()
    parent.wait()
    wait_for_end_of(child)
    assert not (dvc.parent / "over").exists()


def test_a_detached_build_outlives_the_shell_that_started_it(dvc: Path):
    shell = start("sh", "-c", f"nohup {sys.executable} {dvc} >/dev/null 2>&1 & sleep 60", cwd=dvc.parent)
    written_pid(dvc.parent)
    shell.kill()
    shell.wait()
    wait_for((dvc.parent / "over").exists)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a thread of Python's has to end it")
def test_a_child_ends_with_its_parent_even_in_native_code_that_keeps_python_s_lock(tmp_path: Path):
    child = (
        "import ctypes, os, pathlib, sys\nfrom stages.core import lifetime\n"
        "lifetime.end_with_parent(int(sys.argv[1]))\n"
        "pathlib.Path('pid').write_text(str(os.getpid()))\nctypes.PyDLL(None).sleep(60)\n"
    )
    (tmp_path / "child.py").write_text(child)
    code = "import os, subprocess, sys; subprocess.run([sys.executable, 'child.py', str(os.getpid())])"
    parent = start(sys.executable, "-c", code, cwd=tmp_path)
    process = written_pid(tmp_path)
    parent.kill()
    parent.wait()
    wait_for_end_of(process)


def test_a_child_whose_parent_is_gone_already_ends(tmp_path: Path):
    code = "from stages.core import lifetime; import time; lifetime.end_with_parent(1); time.sleep(60)"
    assert start(sys.executable, "-c", code, cwd=tmp_path).wait(timeout=30) == 1


def test_processes_that_share_work_end_with_their_stage(tmp_path: Path):
    code = (
        "import os, pathlib, time\nfrom types import SimpleNamespace as Clip\n"
        "from stages.core.parallel import in_shares\n"
        "def work(clips):\n    if clips[0].seconds == 1:\n        pathlib.Path('pid').write_text(str(os.getpid()))\n"
        "    time.sleep(60)\nin_shares(work, [Clip(seconds=2), Clip(seconds=1)], 2)\n"
    )
    parent = start(sys.executable, "-c", code, cwd=tmp_path)
    process = written_pid(tmp_path)
    assert process.pid != parent.pid
    parent.kill()
    parent.wait()
    wait_for_end_of(process)


def wait_for(condition) -> None:
    for _ in range(200):
        if condition():
            return
        time.sleep(0.05)
    pytest.fail("waited 10 s in vain")
