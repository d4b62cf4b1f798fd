"""One model's failure is its own: with the real DVC, on stages of the names of ours that take no time."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from ruamel.yaml import YAML

from stages.commands import dvc, repro, side_by_side
from stages.commands.build import supervise
from stages.commands.display import forecast
from stages.commands.heal import heal
from stages.commands.tally import Tally
from stages.core import failures, params, plan
from stages.core.errors import UserError
from tests import workspace
from tests.workspace import ROOT

pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")  # of DVC's own tries
RUN = """
import os, pathlib, sys, time
stage, needs, out, how = sys.argv[1:]
if stage == "environment":
    from stages.core import failures
    failures.clear()
if not all(pathlib.Path(need).exists() for need in needs.split(",") if need):
    sys.exit(1)
how = pathlib.Path(how).read_text().strip()
if how == "slow":
    from stages.core import progress
    for _ in progress.each("abcdefghi", "letters"):
        time.sleep(0.2)
    how = "well"
if how == "bug":
    raise KeyError("the last line of a traceback")
if how == "mistake":
    from stages.core import failures
    failures.record(stage, "model.pt is truncated")
if how != "well":
    sys.exit(1)
pathlib.Path(out).parent.mkdir(parents=True, exist_ok=True)
pathlib.Path(out).write_text(str(sorted(os.listdir("reports/failures"))))
"""
STAGES = {  # name: what it needs
    "environment": [],
    "export@a": ["environment"],
    "evaluate@a-t": ["export@a"],
    "benchmark@a-t": ["export@a"],
    "export@b": ["environment"],
    "evaluate@b-t": ["export@b"],
    "benchmark@b-t": ["export@b"],
    "report@t": ["evaluate@a-t", "benchmark@a-t", "evaluate@b-t", "benchmark@b-t"],
    "summary": ["report@t"],
    "package": ["summary"],
    "gate": ["package"],
}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DVC project in which model `a` ends as how/export@a says; `gate` is closed while that is not `well`."""
    place = tmp_path_factory.mktemp("template") / "project"
    (place / "how").mkdir(parents=True)
    (place / "run.py").write_text(RUN)
    blocks: dict[str, dict[str, Any]] = {}
    for name, needs in STAGES.items():
        (place / "how" / name).write_text("well")
        block, _, key = name.partition("@")
        before = [f"out/{need}" for need in needs if block not in {"report", "gate"}]
        late = ["reports/failures"] if block in {"report", "summary"} else []
        stage = {
            "cmd": f"{sys.executable} run.py {name} {','.join(before) or ','} out/{name} how/{name}",
            "deps": [f"how/{name}", *(f"out/{need}" for need in needs), *late],
            "outs": [f"out/{name}"],
        } | ({"always_changed": True} if name == "environment" else {})
        if key:
            template = json.loads(json.dumps(stage).replace(f"@{key}", "@${key}"))
            blocks.setdefault(block, {"foreach": [], "do": template})["foreach"].append(key)
        else:
            blocks[name] = stage
    for block, made in blocks.items():  # of a block, stages need the same stage of their own model
        if block in {"evaluate", "benchmark"}:
            needed = json.dumps(made["do"]).replace("export@a", "export@${item}").replace("export@b", "export@${item}")
            made["foreach"] = {key: key.removesuffix("-t") for key in made["foreach"]}
            made["do"] = json.loads(needed)
        elif "foreach" in made:
            made["do"] = json.loads(json.dumps(made["do"]).replace("${key}", "${item}"))
    YAML().dump({"stages": blocks}, place / "dvc.yaml")
    workspace.copy_dvc(place)
    subprocess.run(["git", "init", "--quiet"], cwd=place, check=True)
    return place


@pytest.fixture(autouse=True)
def project(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that, in which builds run without a plan and one after the other."""
    place = Path(shutil.copytree(template, tmp_path / "project"))
    monkeypatch.chdir(place)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    failures.clear()
    monkeypatch.setattr(plan, "write", lambda _: False)
    monkeypatch.setattr(plan, "derive", lambda _: SimpleNamespace(reports={"t": None}))
    monkeypatch.setattr(params, "load", lambda: None)
    monkeypatch.setattr(side_by_side, "side_by_side", lambda _: True)
    return place


def build(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        repro.repro(arguments)
    return int(str(stopped.value.code))


def test_what_does_not_depend_on_a_failed_stage_is_built_and_what_does_is_known():
    assert build() == 0
    assert failures.find_cause("evaluate@a-t") is None
    Path("how/export@a").write_text("mistake")
    Path("how/benchmark@b-t").write_text("crash")
    Path("how/export@b").write_text("well\n")  # changed, so that b is built again too
    assert build() == 1
    assert Path("out/evaluate@b-t").exists()
    # Though what an earlier build measured lies there.
    assert Path("out/evaluate@a-t").exists()
    assert failures.find_cause("evaluate@a-t", "benchmark@a-t") == "export@a: model.pt is truncated"
    assert failures.find_cause("evaluate@b-t") is None
    assert failures.find_cause("benchmark@b-t") == f"benchmark@b-t: {failures.CRASHED}"
    for name in ("export@a", "benchmark@b-t"):
        Path("how", name).write_text("well")
    assert build() == 0
    assert failures.known() == {}


def share(url: object) -> None:
    """Give DVC a default remote."""
    subprocess.run(["dvc", "remote", "add", "--quiet", "--default", "--force", "shared", str(url)], check=True)


def test_what_a_failed_stage_does_not_keep_back_is_reported_of_a_build_that_pulls_too(tmp_path: Path):
    (tmp_path / "remote").mkdir()
    share(tmp_path / "remote")
    assert build() == 0
    Path("how/export@a").write_text("mistake")
    assert build("--pull") == 1
    assert "export@a" in Path("out/report@t").read_text()  # which failures it was made of


@pytest.mark.parametrize(
    ("url", "why"),
    [
        pytest.param("s3://bucket/kiln", "requires 'dvc-s3'", id="without-its-plugin"),
        pytest.param("http://127.0.0.1:9/kiln", "could not be reached (ConnectionRefused", id="that-does-not-answer"),
        pytest.param("/proc/nowhere", "found nothing at /proc/nowhere", id="of-a-first-build"),
        pytest.param(None, "DVC has no default remote", id="that-is-none"),
    ],
)
def test_a_remote_that_gives_nothing_does_not_end_a_build(url: str | None, why: str, capfd: pytest.CaptureFixture[str]):
    if url:
        share(url)
    assert build("--pull", "export@b") == 0
    said = capfd.readouterr().out.splitlines()
    assert said[0].startswith("nothing is restored from DVC's remote: ")
    assert why in said[0]


def test_dvc_that_was_killed_ends_the_build_with_its_signal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(dvc, "command", lambda *_, **__: ["sh", "-c", "echo last words; kill -9 $$"])
    assert build() == 137
    said = capsys.readouterr()
    assert "stopped by signal 9; run it again to go on" in said.err
    log = said.out.splitlines()[0].removeprefix("log: ")
    assert "last words" in Path(log).read_text()
    assert said.out.splitlines()[1].startswith("stopped, nothing was built")


def test_a_build_that_never_began_reports_nothing():
    assert build() == 0
    before = Path("out/gate").stat().st_mtime_ns
    Path("how/environment").write_text("crash")
    assert build() == 1
    assert Path("out/gate").stat().st_mtime_ns == before


def test_a_build_is_a_line_for_each_stage_that_ran_and_none_where_nothing_did(capfd: pytest.CaptureFixture[str]):
    assert build() == 0
    first, *lines, last = capfd.readouterr().out.splitlines()
    log = first.removeprefix("log: ")
    assert {re.sub(r"^\[.*\] |: \d+\.\d s$", "", line) for line in lines} == STAGES.keys() - {"environment"}
    assert re.match(r"\[11( of 11)?\] gate: ", lines[-1])  # how many there are, DVC tells a moment after it has begun
    assert re.fullmatch(rf"10 ran, \d+\.\d s; log: {log}", last)
    assert "export@a: > " in Path(log).read_text()
    assert build() == 0
    _, last = capfd.readouterr().out.splitlines()
    assert re.fullmatch(r"nothing to build: 11 stages are up to date, \d+\.\d s; log: .*", last)
    Path("how/export@a").write_text("bug")
    assert build("export@a") == 1
    said = capfd.readouterr()
    assert "] export@a: failed after" in said.out
    assert "export@a failed:\n" in said.err
    assert "  KeyError: 'the last line of a traceback'\n" in said.err
    assert "1 failed" in said.out.splitlines()[-1]


def test_what_dvc_itself_complains_of_is_shown(capfd: pytest.CaptureFixture[str]):
    assert build("export@c") == 1
    said = capfd.readouterr()
    assert "ERROR: Stage 'export@c' not found" in said.err
    assert "nothing was built" in said.out


def test_on_a_terminal_the_stage_that_runs_is_shown_with_its_progress():
    Path("how/export@a").write_text("slow")
    ours, theirs = os.openpty()
    command = [sys.executable, "-c", "from tests.commands import test_repro as t; t.pretend_terminal()"]
    process = subprocess.Popen(command, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm"})
    os.close(theirs)
    seen = b""
    with suppress(OSError):
        while data := os.read(ours, 65536):
            seen += data
    os.close(ours)
    assert process.wait() == 0
    shown = re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "", seen.decode())
    assert re.search(r"stage 2( of 3)? +\d:\d\d *\n *export@a +0:\d\d +letters: \d of 9", shown.replace("\r", ""))
    assert "Running stage" not in shown


def pretend_terminal() -> None:
    """Build one evaluation in this process, whose output is a terminal."""
    repro.refuse_busy()
    with supervise(["evaluate@a-t"]) as build_:
        repro._run(build_, ["repro", "evaluate@a-t"])


def test_the_rest_is_estimated_by_what_the_last_build_took():
    tally = Tally([])
    tally.before = {"a": 10.0, "b": 20.0, "c": 40.0}
    tally.needs = {"a": set(), "b": {"a"}, "c": set(), "d": {"a", "b"}}
    tally._reading = threading.Thread()  # started, so that it does not ask DVC
    tally._reading.start()
    running = tally.begin("a")
    running.start -= 4
    seconds, unknown = tally.rest()
    assert (round(seconds), unknown) == (26, 1)  # 6 of a, 20 of b; c needs nothing that ran; d was never timed
    assert forecast(tally) == "about 0:26 left, without 1 stages that never ran"
    tally.finish(running)
    assert round(tally.rest()[0]) == 20


def test_locks_that_a_kill_tore_cost_no_finished_stage(capfd: pytest.CaptureFixture[str]):
    assert build() == 0
    whole = Path("dvc.lock").read_bytes()
    Path("dvc.lock").write_bytes(whole[: len(whole) // 3])
    Path(".dvc/tmp/rwlock").write_text('{"write": {"/x')
    heal()
    capfd.readouterr()
    assert build() == 0
    assert "10 restored from DVC's cache" in capfd.readouterr().out
    # Cut between two stages, it can be read: DVC restores those that it lost.
    Path("dvc.lock").write_bytes(whole[: whole.index(b"  evaluate@b-t:")])
    heal()
    assert build() == 0
    said = capfd.readouterr().out
    assert "restored from DVC's cache" in said
    assert "] " not in said


def test_a_remote_that_does_not_answer_ends_dvc_and_a_stage_that_sleeps_does_not(monkeypatch: pytest.MonkeyPatch):
    def stalled(say: str) -> list[str]:
        monkeypatch.setattr(dvc, "command", lambda *_, **__: ["sh", "-c", f"{say}; exec sleep 2.5"])
        with supervise([]) as build_:
            build_.run(["pull"], patience=1.0)
        return build_.errors

    assert stalled("true") == ["ERROR: DVC's remote did not answer for 1 s"]
    assert stalled("echo \"Running stage 'export@a':\"") == []


def test_of_two_builds_that_begin_together_one_is_refused():
    first = "from stages.commands import repro\nwith repro._alone():\n    print(flush=True)\n    input()"
    with subprocess.Popen([sys.executable, "-c", first], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout
        other.stdout.readline()
        with pytest.raises(UserError, match="a build begins here already"):
            repro.repro(["export@b"])
        other.kill()
    assert build("export@b") == 0


def test_another_build_is_named_and_what_a_killed_one_left_is_waited_for():
    Path("dvc").write_text("import time\ntime.sleep(60)\n")
    busy = subprocess.Popen([sys.executable, "dvc", "repro"])
    try:
        with pytest.raises(UserError, match=rf"a build runs here already: process {busy.pid} \(`.* dvc repro`\)"):
            repro.refuse_busy()
    finally:
        busy.kill()
        busy.wait()
    stage = subprocess.Popen(["sleep", "1"], env={**os.environ, "DVC_STAGE": "export@a"}, start_new_session=True)
    threading.Thread(target=stage.wait, daemon=True).start()
    left = psutil.Process(stage.pid)
    repro.refuse_busy()
    assert not left.is_running() or left.status() == psutil.STATUS_ZOMBIE  # the thread may be about to ask for it
