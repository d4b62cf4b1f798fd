"""A program that works for another has its time and its memory, and leaves nothing behind."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from stages.core import children
from stages.core.errors import UserError
from tests.workspace import ROOT

# Starts a program that sleeps, and writes down its process id.
GRANDCHILD = """
import subprocess, sys
sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
open(sys.argv[1], "w").write(str(sleeper.pid))
sleeper.wait()
"""


def python(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", code, *arguments]


def test_what_is_in_time_gives_its_status_and_what_it_printed():
    code = "import os, sys; print(os.environ['A']); sys.exit('no such operator')"
    done = children.run(python(code), 60, environment={"A": "b"})
    assert (done.returncode, done.stdout, children.why_failed(done)) == (1, "b\n", "no such operator")
    assert children.why_failed(children.run(python("pass"), 60)) is None


@pytest.mark.parametrize(
    ("code", "why"),
    [
        pytest.param("import os; os.abort()", "died of signal 6", id="crash"),
        pytest.param("import sys; sys.exit(3)", "no message", id="silent"),
        pytest.param("b = bytearray(2 << 30)", "MemoryError", id="memory"),
    ],
)
def test_what_fails_is_said(code: str, why: str):
    assert children.why_failed(children.run(python(code), 60, memory_gib=1)) == why


def test_what_hangs_is_ended_with_all_that_it_started(tmp_path: Path):
    for seconds in (1, 5, 25):  # a busy machine may need longer to start anything
        with pytest.raises(UserError, match=rf"^ran for over {seconds} s and was stopped$"):
            children.run(python(GRANDCHILD, str(tmp_path / "pid")), seconds)
        if (tmp_path / "pid").is_file():
            break
    wait_until_gone(tmp_path / "pid")


def test_it_ends_with_the_process_that_it_works_for(tmp_path: Path):
    sleep = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(60)"
    code = f"import sys; from stages.core import children; children.run({python(sleep, str(tmp_path / 'pid'))!r}, 60)"
    parent = subprocess.Popen(python(code), cwd=ROOT)
    for _ in range(400):
        if (tmp_path / "pid").is_file() and (tmp_path / "pid").read_text():
            break
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    wait_until_gone(tmp_path / "pid")


def wait_until_gone(place: Path) -> None:
    """Wait for the end of a process whose id is in a file; one that nobody waits for may stay as a zombie."""
    pid = int(place.read_text())
    for _ in range(200):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return
        time.sleep(0.05)
    pytest.fail(f"process {pid} runs on")
