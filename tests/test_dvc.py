"""What DVC says and restores with our dvc.yaml files and plan, before anything runs and after; stages are made up.

DVC runs in this process, with what `kiln` replaces in it: without, half of the time goes into parsing the same files.
Once it runs as one types it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dvc.cli import main
from dvc.dependency import ParamsDependency
from dvc.repo import Repo
from ruamel.yaml import YAML

from stages.core import params, plan
from stages.core.patches.dvc import dvc_once
from tests import workspace

pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")  # of DVC's own tries
MODEL = "paraformer"
SMOOTH = "quantize.recipes.int8.smooth"  # a setting that one stage reads
RECIPE = f"quantize@{MODEL}-dense-int8"
AFTER_ALL = {"summary", "package", "gate"}
STAGE = """
import hashlib, json, pathlib, sys, yaml
name = sys.modules["__main__"].__spec__.name.removeprefix("stages.")
name = "@".join([name, *sys.argv[1:]])
stage = json.loads(pathlib.Path("stages.json").read_text())[name]
with open("ran", "a") as log:
    print(name, file=log)
made = hashlib.sha256()
for path, keys in stage["params"].items():
    settings = yaml.load(pathlib.Path(path).read_text(), yaml.CSafeLoader)
    for key in keys:
        value = settings
        for step in key.split("."):
            value = value[step]
        made.update(repr(value).encode())
for dep in stage["deps"]:
    for path in sorted([pathlib.Path(dep), *pathlib.Path(dep).rglob("*")]):
        made.update(path.read_bytes() if path.is_file() else b"")
number = int(made.hexdigest()[:6], 16)
for path in map(pathlib.Path, stage["makes"]):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"number": number}))
"""


@pytest.fixture(autouse=True, scope="module")
def _as_kiln_runs_it() -> Iterator[None]:
    with dvc_once():
        yield


def dvc(*arguments: str) -> int:
    """Run a command of DVC in this process."""
    return int(main(list(arguments)))


def git(*arguments: str) -> None:
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments], check=True, capture_output=True)


def commit() -> None:
    """Commit everything, what DVC locked too."""
    git("add", "--all")
    git("commit", "--quiet", "--message", "a build")


def ran() -> set[str]:
    """The stages that ran since this was asked last, but the one that always does."""
    log = Path("ran")
    names = log.read_text().splitlines() if log.exists() else []
    log.unlink(missing_ok=True)
    assert len(names) == len(set(names))
    return set(names) - {"environment"}


def asked() -> set[str]:
    """The stages that `dvc status` names, without the file that each is in, but the one that always runs."""
    return {line.rpartition(":")[2] for line in Repo().status()} - {"environment"}


def announced() -> set[str]:
    """The stages that `dvc repro --dry` would run, but the one that always does."""
    return {stage.name for stage in Repo().reproduce(dry=True)} - {"environment"}


def stages_of_target(name: str) -> set[str]:
    """The stages of a target alone."""
    return {f"evaluate@{MODEL}-{name}", f"benchmark@{MODEL}-{name}", f"report@{name}"}


def edit(change: Callable[[Any], None]) -> None:
    """Change params.yaml and derive the plan again."""
    settings = YAML().load(Path("params.yaml"))
    change(settings)
    YAML().dump(settings, Path("params.yaml"))
    plan.write(params.load())
    describe()


def one_model(settings: Any) -> None:
    """Leave one model on two targets, and no pipeline."""
    settings["models"] = {MODEL: settings["models"][MODEL] | {"targets": ["cpu_fp32", "cpu_int8"]}}
    data = settings["models"][MODEL]["dataset"]
    settings["datasets"] = {data: settings["datasets"][data]}
    settings["pipelines"] = {}


def pretend() -> None:
    """Put in the place of each stage one that takes no time, and makes its outs of its settings and dependencies."""
    for file in Path("stages").glob("[a-z]*.py"):
        file.write_text(STAGE)
    describe()


def describe() -> None:
    """Tell these what they read and make."""
    stages: Any = Repo().index.stages
    deps = {os.path.relpath(dep.fs_path) for stage in stages for dep in stage.deps}
    facts: dict[str, Any] = {}
    for stage in stages:
        tracked = [dep for dep in stage.deps if isinstance(dep, ParamsDependency)]
        outs = [os.path.relpath(out.fs_path) for out in stage.outs]
        inside = [dep for dep in deps for out in outs if dep.startswith(f"{out}/")]
        facts[stage.name] = {
            "params": {os.path.relpath(dep.fs_path): list(dep.params) for dep in tracked},
            "deps": [os.path.relpath(dep.fs_path) for dep in stage.deps if dep not in tracked],
            "makes": [*inside, *(out if Path(out).suffix else f"{out}/made" for out in outs)],
        }
    facts["environment"]["makes"].append("reports/failures/none")
    Path("stages.json").write_text(json.dumps(facts))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with one model on two targets, built, and committed with its locks."""
    place = workspace.repository(tmp_path_factory.mktemp("built"))
    for folder in ("pins", "searches", "benchmarks/gpu"):
        shutil.copytree(workspace.ROOT / folder, place / folder)
    with pytest.MonkeyPatch.context() as patch:
        enter(place, patch)
        Path(".gitignore").write_text("/artifacts/\n/reports/\n/ran\n/stages.json\n__pycache__/\n")
        edit(one_model)
        pretend()
        commit()
        assert dvc("repro") == 0
        assert len(ran()) == 16
        commit()
    return place


def enter(place: Path, patch: pytest.MonkeyPatch) -> None:
    """Work there, with a state of DVC's own and the Python that runs this."""
    patch.chdir(place)
    patch.setenv("DVC_SITE_CACHE_DIR", str(place / ".dvc" / "tmp" / "site"))
    patch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)


@pytest.fixture
def project(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that."""
    place = tmp_path / "project"
    shutil.copytree(built, place)
    enter(place, monkeypatch)
    return place


@pytest.mark.usefixtures("project")
def test_a_changed_recipe_is_told_before_anything_runs():
    assert asked() == announced() == set()
    edit(lambda settings: settings["quantize"]["recipes"]["int8"].update(smooth=0.25))
    assert asked() == announced() == {RECIPE, "package"}  # which names it; what follows depends on what it makes
    assert Repo().params.diff()["diff"] == {"params.yaml": {SMOOTH: {"old": 0.5, "new": 0.25, "diff": -0.25}}}
    assert ran() == set()


@pytest.mark.usefixtures("project")
def test_an_experiment_sets_a_value_runs_what_it_concerns_and_its_commit_shows_the_difference():
    assert dvc("exp", "run", "--quiet", "--set-param", f"{SMOOTH}=0.25") == 0
    assert ran() == {RECIPE, *stages_of_target("cpu_int8"), *AFTER_ALL}
    assert YAML().load(Path("params.yaml"))["quantize"]["recipes"]["int8"]["smooth"] == 0.25
    commit()
    [(metrics, numbers)] = Repo().metrics.diff("HEAD~1", "HEAD")["diff"].items()
    assert metrics == "reports/cpu_int8/metrics.json"
    assert numbers["number"]["new"] == json.loads(Path(metrics).read_text())["number"] != numbers["number"]["old"]


@pytest.mark.usefixtures("project")
def test_another_target_of_a_model_runs_its_own_stages_and_nothing_else():
    edit(lambda settings: settings["models"][MODEL]["targets"].append("cpu_fp32_opt"))
    assert asked() == {*stages_of_target("cpu_fp32_opt"), *AFTER_ALL} - {"gate"}
    assert dvc("repro", "--quiet") == 0
    assert ran() == {*stages_of_target("cpu_fp32_opt"), *AFTER_ALL}


def test_another_clone_restores_a_build_from_a_remote(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert dvc("remote", "add", "--quiet", "--default", "shared", str(tmp_path / "remote")) == 0
    git("rm", "--quiet", "--cached", "*dvc.lock")  # nobody need commit it
    git("commit", "--quiet", "--message", "a remote", ".dvc/config")
    assert dvc("push", "--quiet", "--run-cache") == 0
    git("clone", "--quiet", str(project), str(tmp_path / "clone"))
    enter(tmp_path / "clone", monkeypatch)
    shutil.copy(project / "stages.json", "stages.json")
    subprocess.run(["dvc", "repro", "--quiet", "--pull"], check=True)  # as one types it: with nothing replaced
    assert ran() == set()
    for out in (Path("artifacts", MODEL, "dense", "int8", "made"), Path("reports", "gate.json")):
        assert out.read_bytes() == (project / out).read_bytes()
