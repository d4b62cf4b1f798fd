"""How a stage ends: one message and an exit status for mistakes, a traceback for bugs, and never outliving dvc."""

from __future__ import annotations

import os
import signal
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


def test_a_stage_dies_with_the_dvc_that_started_it(tmp_path: Path):
    stage, dvc = tmp_path / "stage.py", tmp_path / "dvc"
    stage.write_text(
        "import os, pathlib, sys, time\nfrom stages.core.errors import entrypoint\n"
        "def main(argv):\n    pathlib.Path(argv[0]).write_text(str(os.getpid()))\n    time.sleep(9)\nentrypoint(main)\n"
    )
    dvc.write_text(f"import subprocess\nsubprocess.run('{sys.executable} {stage} {tmp_path}/pid; true', shell=True)\n")
    parent = subprocess.Popen([sys.executable, str(dvc)], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text() != "")
    child = psutil.Process(int((tmp_path / "pid").read_text()))
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    wait_for(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def wait_for(condition) -> None:
    for _ in range(200):
        if condition():
            return
        time.sleep(0.05)
    pytest.fail("waited 10 s in vain")
