"""What Ray runs on a machine, here in this process with a commit of a few lines."""

from __future__ import annotations

import fcntl
import io
import tarfile
import tempfile
import threading
from pathlib import Path

import pytest

from stages.cluster import bootstrap

REPORTS = """
import json, os, pathlib, sys
parent, result, *arguments = sys.argv[1:]
pathlib.Path(result).write_text(json.dumps({
    "trouble": None, "arguments": arguments, "threads": os.environ.get("OMP_NUM_THREADS"),
    "declared": os.environ["DECLARED"], "is_parent": int(parent) == os.getppid(), "commit": os.listdir(),
}))
"""


def commit(worker: str) -> bytes:
    """The archive of a commit that has this worker alone."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name, text in (("__init__", ""), ("cluster/__init__", ""), ("cluster/worker", worker)):
            entry = tarfile.TarInfo(f"stages/{name}.py")
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    return archive.getvalue()


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_the_commit_s_worker_reports_and_nothing_is_left(scratch: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as Ray does
    found = bootstrap.run(commit(REPORTS), ["build", "a"], {"DECLARED": "yes"}, alone=False)
    assert {"stages", ".git"} <= set(found.pop("commit"))
    wanted = {"trouble": None, "arguments": ["build", "a"], "threads": None, "declared": "yes", "is_parent": True}
    assert found == wanted
    assert not list(scratch.glob(f"{bootstrap.PREFIX}*"))


@pytest.mark.parametrize(
    ("worker", "why"),
    [
        pytest.param("import no_such_library", "ModuleNotFoundError: No module named 'no_such_library'", id="library"),
        pytest.param("import os; os.kill(os.getpid(), 9)", "it ended with status -9", id="killed"),
    ],
)
def test_a_worker_that_cannot_report_is_a_line(worker: str, why: str):
    assert bootstrap.run(commit(worker), ["facts"], {}, alone=False) == {"trouble": why}


def test_what_a_killed_worker_left_is_removed_and_what_one_works_in_is_not(scratch: Path):
    left, used = scratch / f"{bootstrap.PREFIX}999999999-x", scratch / f"{bootstrap.PREFIX}1-x"
    left.mkdir()
    used.mkdir()
    bootstrap.run(commit("pass"), [], {}, alone=False)
    assert (left.exists(), used.exists()) == (False, True)


def test_who_measures_time_waits_until_nothing_else_runs_on_the_machine(scratch: Path):
    ended = threading.Event()

    def measure() -> None:
        bootstrap.run(commit("pass"), [], {}, alone=True)
        ended.set()

    with bootstrap._take_turn(alone=False):
        threading.Thread(target=measure, daemon=True).start()
        assert not ended.wait(0.5)
        (place,) = scratch.glob("kiln-*.lock")
        with place.open() as other:
            fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)  # what is not timed need not wait
    assert ended.wait(20)
