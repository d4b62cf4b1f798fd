"""One model's failure is its own: with the real DVC, on stages of the names of ours that take no time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from ruamel.yaml import YAML

from stages.commands import repro
from stages.core import failures
from tests.workspace import ROOT

pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")  # of DVC's own tries
RUN = """
import sys, pathlib
from stages.core import failures
stage, needs, out, how = sys.argv[1:]
if stage == "environment":
    failures.clear()
if not all(pathlib.Path(need).exists() for need in needs.split(",") if need):
    sys.exit(1)
how = pathlib.Path(how).read_text().strip()
if how == "mistake":
    failures.record(stage, "model.pt is truncated")
if how != "well":
    sys.exit(1)
pathlib.Path(out).parent.mkdir(parents=True, exist_ok=True)
pathlib.Path(out).write_text(str(sorted(failures.known())))
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


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A DVC project in which model `a` ends as how/export@a says; `gate` is closed while that is not `well`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    Path("run.py").write_text(RUN)
    Path("how").mkdir()
    blocks: dict[str, dict] = {}
    for name, needs in STAGES.items():
        Path("how", name).write_text("well")
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
    YAML().dump({"stages": blocks}, Path("dvc.yaml"))
    failures.clear()
    for command in (["git", "init", "--quiet"], ["dvc", "init", "--quiet"]):
        subprocess.run(command, check=True)
    monkeypatch.setattr(repro.plan, "write", lambda _: False)
    monkeypatch.setattr(repro.plan, "derive", lambda _: SimpleNamespace(reports={"t": None}))
    monkeypatch.setattr(repro.params, "load", lambda: None)
    monkeypatch.setattr(repro, "side_by_side", lambda: None)
    return tmp_path


def build() -> int:
    with pytest.raises(SystemExit) as stopped:
        repro.repro([])
    return int(str(stopped.value.code))


@pytest.mark.parametrize(
    ("how", "why"),
    [
        pytest.param("mistake", "export@a: model.pt is truncated", id="a-mistake"),
        pytest.param("crash", f"export@a: {failures.CRASHED}", id="a-crash-that-left-no-word"),
    ],
)
def test_what_does_not_depend_on_a_failed_stage_is_built_and_what_does_is_known(how: str, why: str):
    assert build() == 0
    assert failures.behind("evaluate@a-t") is None
    Path("how/export@a").write_text(how)
    Path("how/export@b").write_text("well\n")  # changed, so that b is built again too
    assert build() == 1
    assert Path("out/evaluate@b-t").exists()
    assert failures.behind("evaluate@a-t", "benchmark@a-t") == why  # though what an earlier build measured lies there
    assert Path("out/evaluate@a-t").exists()
    assert failures.behind("evaluate@b-t", "benchmark@b-t") is None
    Path("how/export@a").write_text("well")
    assert build() == 0
    assert failures.known() == {}


def test_a_build_that_was_killed_ends_and_reports_nothing(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stopped:
        repro._run(["sh", "-c", "kill -9 $$"])
    assert stopped.value.code == 137
    assert "stopped by signal 9; run it again to go on" in capsys.readouterr().err


def test_a_build_that_never_began_reports_nothing():
    assert build() == 0
    before = Path("out/gate").stat().st_mtime_ns
    Path("how/environment").write_text("crash")
    assert build() == 1
    assert Path("out/gate").stat().st_mtime_ns == before


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6])
def test_a_lock_that_a_kill_tore_costs_no_finished_stage(share: float, capfd: pytest.CaptureFixture[str]):
    assert build() == 0
    capfd.readouterr()
    whole = Path("dvc.lock").read_bytes()
    Path("dvc.lock").write_bytes(whole[: int(share * len(whole))])
    assert build() == 0
    said = capfd.readouterr().out
    assert "Running stage 'export" not in said
    assert build() == 0
    assert "Running stage 'export" not in capfd.readouterr().out
