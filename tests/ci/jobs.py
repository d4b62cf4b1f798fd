"""Jobs of a CI, each in a clone of a small project: its shell steps run with the real DVC, `make` and `kiln`.

Stages are made up, as are the programs that would talk to somebody: `gh`, `cml`, `curl` and `kiln publish`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from stages import summary
from stages.core import params, plan
from stages.core.files import write_json
from stages.reporting import results
from tests import workspace
from tests.workspace import ROOT

GITHUB = YAML(typ="safe").load(ROOT / ".github" / "workflows" / "kiln.yml")
GITLAB = YAML(typ="safe").load(ROOT / ".gitlab-ci.yml")
STEPS = GITHUB["jobs"]["kiln"]["steps"]
COPIED = ("Makefile", "pyproject.toml", "requirements.txt", ".ci", ".dvcignore", ".gitignore")
RUN = """
import pathlib, sys
name, out, *needs = sys.argv[1:]
if name == "environment":
    from stages.core import failures
    failures.clear()
with open("ran", "a") as log:
    print(name, file=log)
pathlib.Path(out).parent.mkdir(parents=True, exist_ok=True)
pathlib.Path(out).write_text(pathlib.Path(needs[0]).read_text() if needs else "")
"""
FILES = {  # of each dvc.yaml: a stage's name, what it makes, what it reads
    "stages/dvc.yaml": ("environment", "artifacts/environment", []),
    "stages/dag/accuracy/dvc.yaml": ("evaluate", "reports/accuracy.json", ["measured.json"]),
    "stages/dag/pipelines/dvc.yaml": ("pipeline", "reports/pipeline.json", ["measured.json"]),
    "dvc.yaml": ("summary", "reports/summary.json", ["reports/accuracy.json", "reports/pipeline.json"]),
}
MARKERS = tuple(f".venv/{name}" for name in ("uv", "libraries", "older", "runtime"))  # in the order `make` leaves them
GITHUB_EVENTS = {
    "push": {"event_name": "push", "ref": "refs/heads/main"},
    "pull_request": {"event_name": "pull_request", "ref": "refs/pull/7/merge"},
    "tag": {"event_name": "push", "ref": "refs/tags/v1.2.0"},
    "schedule": {"event_name": "schedule", "ref": "refs/heads/main"},
}


def holds(condition: str, event: Mapping[str, str]) -> bool:
    """Tell whether a step's condition holds, by as much of GitHub's language as the file uses."""
    text = re.sub(r"startsWith\((.+?), (.+?)\)", r"\1.startswith(\2)", condition.replace("always()", "True"))
    text = re.sub(r"github\.(\w+)", lambda name: repr(event[name[1]]), text).replace("&&", "and")
    return bool(eval(text, {"__builtins__": {}}))  # noqa: S307  of our own file


@dataclass
class Job:
    """A clone in which steps run, with an environment of its own and what the programs were called with."""

    place: Path
    variables: dict[str, str]
    statuses: dict[str, int] = field(default_factory=dict)

    def shell(self, script: str) -> int:
        """Run a step as the CI does: a new shell that ends with the first error."""
        bash = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
        done = subprocess.run(bash, cwd=self.place, env=self.environment(), capture_output=True, text=True, check=False)
        with (self.place / "log").open("a") as log:
            print(f"$ {script}", done.stdout, done.stderr, sep="\n", file=log)
        return done.returncode

    def environment(self) -> dict[str, str]:
        """The step's variables; its PATH has what earlier steps appended to GitHub's file."""
        added = (self.place / "path").read_text().split() if (self.place / "path").exists() else []
        inherited = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
        path = os.pathsep.join([*added, str(self.place / "tools"), "/usr/bin", "/bin"])
        return inherited | self.variables | {"PATH": path}

    def github(self, event: str) -> None:
        """Run the workflow's shell steps for an event."""
        is_good = True
        for step in STEPS:
            condition = step.get("if", "True")
            is_due = (is_good or "always()" in condition) and holds(condition, GITHUB_EVENTS[event])
            if "run" in step and is_due:
                self.variables |= dict.fromkeys(step.get("env", {}), "of GitHub")
                self.statuses[step["name"]] = status = self.shell(step["run"])
                is_good &= status == 0

    def gitlab(self, name: str) -> int:
        """Run a job's shell lines, and afterwards those that run whatever happened; give the job's status."""
        parts = GITLAB[".kiln"] | GITLAB[name]
        status = self.shell("\n".join([*parts["before_script"], *parts["script"]]))
        self.statuses["after"] = self.shell("\n".join(parts["after_script"]))
        return status

    def calls(self, program: str) -> list[str]:
        """What a program was called with, a line each."""
        log = self.place / "calls"
        lines = log.read_text().splitlines() if log.exists() else []
        return [line.removeprefix(f"{program} ") for line in lines if line.startswith(f"{program} ")]

    def ran(self) -> list[str]:
        """The stages that ran here, but the one that always does."""
        log = self.place / "ran"
        return sorted(set(log.read_text().split()) - {"environment"}) if log.exists() else []


def make(place: Path, remote: Path) -> None:
    """Write a repository with our CI files, one model and stages that take no time; a folder is DVC's remote."""
    for name in COPIED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, place / name)
    settings = YAML(typ="safe").load(ROOT / "params.yaml")
    settings |= {"models": {workspace.MODEL: settings["models"][workspace.MODEL]}, "pipelines": {}}
    YAML().dump(settings, place / "params.yaml")
    (place / "run.py").write_text(RUN)
    (place / "pins").mkdir()
    shutil.copy(ROOT / "pins" / f"{workspace.MODEL}.json", place / "pins")
    for file, stage in FILES.items():
        wdir = os.path.relpath(place, (place / file).parent)
        (place / file).parent.mkdir(parents=True, exist_ok=True)
        YAML().dump({"stages": block(*stage, wdir=wdir)}, place / file)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        plan.write(params.load())
        write_json(place / "measured.json", measured(place / "made"))
    workspace.copy_dvc(place)
    config = (place / ".dvc" / "config").read_text().replace("[core]\n", "[core]\n    remote = shared\n")
    (place / ".dvc" / "config").write_text(f"{config}['remote \"shared\"']\n    url = {remote}\n")
    subprocess.run(["git", "init", "--quiet", "--initial-branch", "main"], cwd=place, check=True)
    commit(place)


def block(name: str, out: str, needs: list[str], wdir: str) -> dict[str, dict[str, Any]]:
    """The stage of a dvc.yaml, which makes a file of others."""
    stage = {"wdir": wdir, "cmd": f"python run.py {name} {out} {' '.join(needs)}", "outs": [out]}
    return {name: stage | ({"deps": needs} if needs else {"always_changed": True})}


def measured(place: Path) -> dict[str, Any]:
    """The summary of a workspace in which all required builds pass."""
    place.mkdir()
    workspace.make(place, bad=False, unsure=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        p = params.load()
        entries = {name: results.build_entry(p, name) for name in plan.derive(p).builds}
        found: dict[str, Any] = summary.summary(entries, {}, results.environment())
    shutil.rmtree(place)
    return found


def commit(place: Path) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", "add", "--all"], cwd=place, check=True)
    subprocess.run(["git", *who, "commit", "--quiet", "--message", "a change"], cwd=place, check=True)


def clone(project: Path, place: Path, variables: Mapping[str, str], skipped: str = "doctor|publish") -> Job:
    """Clone the project, with an installation that `make` finds complete, and programs that write down their calls.

    skipped: commands of `kiln` that do nothing here: one would talk to somebody, and the other's tests are elsewhere.
    """
    subprocess.run(["git", "clone", "--quiet", str(project), str(place)], check=True)
    python, calls = f"exec {sys.executable}", place / "calls"
    kiln = f'case "$1" in {skipped}) exit 0;; esac\n{python} -m stages "$@"'
    program(place / ".venv/bin/python", calls, f'{python} "$@"')
    program(place / ".venv/bin/dvc", calls, f'{python} -m dvc "$@"')
    program(place / ".venv/bin/kiln", calls, kiln)
    program(place / "tools/python3", calls, f'{python} "$@"')
    for name in ("gh", "curl"):
        program(place / "tools" / name, calls, "cat comparison.md > posted")
    (place / ".venv/bin/activate").write_text('PATH="$PWD/.venv/bin:$PATH"\n')
    (place / ".cache" / "onnxruntime").mkdir(parents=True)
    for order, file in enumerate(("requirements.txt", "pyproject.toml", *MARKERS)):
        (place / file).touch()
        os.utime(place / file, (1e9 + order, 1e9 + order))
    files = {
        "GITHUB_PATH": str(place / "path"),
        "GITHUB_STEP_SUMMARY": str(place / "page"),
        "GITHUB_REF_NAME": "v1.2.0",
    }
    mine = {"PYTHONPATH": str(ROOT), "DVC_SITE_CACHE_DIR": str(place / ".dvc" / "tmp" / "site")}
    return Job(place, {**files, **mine, "GITHUB_REF_NAME": "v1.2.0", **variables})


def program(place: Path, calls: Path, body: str) -> None:
    """Write a program that notes in a file what it is called with."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(f'#!/bin/sh\necho "{place.name} $*" >> "{calls}"\n{body}\n')
    place.chmod(0o755)


def stub(job: Job) -> None:
    """Let `kiln` and `dvc` do nothing but succeed, beside a report: what they do is run for the other CI."""
    for name in ("kiln", "dvc"):
        program(job.place / ".venv/bin" / name, job.place / "calls", "echo said")
    (job.place / "reports").mkdir()
