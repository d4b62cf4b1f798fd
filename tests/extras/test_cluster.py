"""Builds over a loopback cluster of Ray, whose machines share DVC's remote and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks import fleet
from stages import environment
from stages.cluster import bootstrap
from stages.core.files import sha256
from tests import workspace
from tests.workspace import ROOT
from zoo import alone

MEMORY = {"object_store_memory": 80 * 2**20}
MODELS = ("first", "second")  # the same miniature
GRAPHS = "stages/dag/graphs/dvc.yaml:"
BUILT = [f"{GRAPHS}quantize@first-dense-int8", f"{GRAPHS}export@second-dense"]
# As a disk that is full: of a worker whose environment says so, a stage fails with these words.
FULL_DISK = '[ -z "$DISK_IS_FULL" ] || { echo "No space left on device" >&2; exit 1; }\n'
FAILING = 'case "$*" in *${FAILS:-none}/dense/simplify*) exit 1;; esac\n'


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the workers of all machines unpack commits."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")  # noqa: S108  a socket's path has to be short
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


@pytest.fixture
def cluster(scratch: Path) -> Iterator[Any]:
    """A cluster of a head that builds nothing, to which a test adds machines."""
    assert scratch.is_dir()
    with fleet.cluster(0) as made:
        yield made


def kiln(place: Path, *arguments: str) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    command = [sys.executable, "-m", "stages", "repro", *arguments]
    return subprocess.Popen(
        command,
        cwd=place,
        env={**os.environ, "PATH": path},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    said, _ = process.communicate(timeout=400)
    return process.returncode, said


def digests(place: Path) -> dict[str, str]:
    """The digest of every file that a build made."""
    made = [path for path in sorted((place / "artifacts").rglob("*")) if path.is_file()]
    return {str(path.relative_to(place)): sha256(path) for path in made}


# The miniatures


@pytest.fixture
def miniatures(tmp_path: Path) -> Path:
    """A repository of two miniatures of a punctuation model, with little data."""
    place = tmp_path / "one"
    place.mkdir()
    workspace.repository(place)
    for name in (".gitignore", "pyproject.toml"):
        shutil.copy(ROOT / name, place)
    shutil.copytree(ROOT / "zoo" / "ct_transformer", place / "zoo" / "ct_transformer")
    for folder in ("searches", "benchmarks/gpu"):
        shutil.copytree(ROOT / folder, place / folder)
    (place / "pins").mkdir()
    for name in MODELS:
        shutil.copy(ROOT / "pins" / "ct_transformer.json", place / "pins" / f"{name}.json")
    with alone.settings(ROOT / "params.yaml", place / "params.yaml") as settings:
        alone.hurry(settings, {"calibration": 4, "tuning": 2, "evaluation": 7}, {})
        model = settings["models"]["ct_transformer"] | {"targets": ["cpu_int8"], "tuned": {}}
        settings["models"] = dict.fromkeys(MODELS, model)
        settings["datasets"] = {model["dataset"]: settings["datasets"][model["dataset"]]}
        settings["pipelines"] = {}
    fleet.kiln(place, "plan")
    fleet.share_remote(place, tmp_path / "remote")
    return place


def kill_machine_that_builds(cluster: Any, scratch: Path, what: str, build: subprocess.Popen[str]) -> None:
    """Kill the machine on which a part of a build has got as far as this folder."""
    while not (found := list(scratch.glob(f"{bootstrap.PREFIX}*/clone/{what}"))):
        if build.poll() is not None:
            return
        time.sleep(0.05)
    worker = int(found[0].relative_to(scratch).parts[0].removeprefix(bootstrap.PREFIX).partition("-")[0])
    raylet = psutil.Process(worker).ppid()
    machines = {node.all_processes["raylet"][0].process.pid: node for node in cluster.worker_nodes}
    cluster.remove_node(machines[raylet], allow_graceful=False)


def test_with_a_machine_killed_half_way_the_bytes_are_those_of_one_machine(
    cluster: Any, miniatures: Path, scratch: Path, tmp_path: Path
):
    for _ in range(3):
        cluster.add_node(num_cpus=1, **MEMORY)
    many = tmp_path / "many"
    subprocess.run(["git", "clone", "--quiet", str(miniatures), str(many)], check=True)
    fleet.link_older(many)
    build = kiln(many, "--ray", cluster.address, *BUILT)
    killer = threading.Thread(
        target=kill_machine_that_builds, args=(cluster, scratch, "artifacts/first/dense/export", build)
    )
    killer.start()
    status, said = finish(build)
    killer.join()
    assert status == 0, said
    assert "the worker was lost" in said
    assert "it begins again" in said
    assert "Raylet" not in said
    assert len(cluster.worker_nodes) == 2
    status, alone_said = finish(kiln(miniatures, *BUILT))
    assert status == 0, alone_said
    wanted = digests(miniatures)
    assert {"artifacts/first/dense/int8/model.onnx", "artifacts/second/dense/export/model.onnx"} <= wanted.keys()
    assert digests(many) == wanted
    status, said = finish(kiln(many, *BUILT))
    assert status == 0
    assert "nothing to build: " in said
    assert not list(scratch.glob(f"{bootstrap.PREFIX}*/clone/dvc.yaml"))


# Stages that take no time


@pytest.fixture
def sleeping(tmp_path: Path) -> Path:
    """A repository of two models whose stages only write their outputs."""
    place = tmp_path / "project"
    place.mkdir()
    fleet.make(place, 2)
    (place / "stage.sh").write_text(FULL_DISK + FAILING + fleet.STAGE)
    fleet.share_remote(place, tmp_path / "remote")
    return place


def test_a_machine_with_other_versions_is_refused_and_one_with_a_full_disk_keeps_nothing_back(
    cluster: Any, sleeping: Path
):
    other = {environment.DECLARED: json.dumps({"onnx": "1.0"})}
    cluster.add_node(num_cpus=1, env_vars=other, **MEMORY)
    status, said = finish(kiln(sleeping, "--ray", cluster.address))
    assert status == 1
    version = environment.library("onnx")
    assert f"is refused: onnx: found 1.0, wanted {version}\n" in said
    assert said.splitlines()[-1].startswith(f"error: no machine of the cluster at {cluster.address} can build")

    cluster.add_node(num_cpus=1, env_vars={"DISK_IS_FULL": "1"}, **MEMORY)
    status, said = finish(kiln(sleeping, "--ray", cluster.address))
    assert status == 1
    assert said.splitlines()[-1].startswith("error: the cluster did not build corpus@spoken_commands: on ")
    assert "No space left on device (nor m0000, m0001, " in said.splitlines()[-1]
    assert "Traceback" not in said

    cluster.add_node(num_cpus=1, **MEMORY)
    status, said = finish(kiln(sleeping, "--ray", cluster.address))
    assert status == 0, said
    status, said = finish(kiln(sleeping, "--ray", cluster.address))
    assert status == 0
    assert "nothing to build: " in said


def test_a_stage_that_fails_keeps_back_what_needs_it_and_the_build_here_tells_so(
    cluster: Any, sleeping: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FAILS", "m0000")
    cluster.add_node(num_cpus=2, env_vars={"FAILS": "m0000"}, **MEMORY)
    status, said = finish(kiln(sleeping, "--ray", cluster.address))
    assert status == 1
    assert "simplify@m0000-dense failed:" in said
    assert (sleeping / "reports/measurements/cpu_int8/m0001/latency.json").exists()
    assert not (sleeping / "artifacts/m0000/dense/optimize").exists()


def test_a_tree_that_differs_from_the_commit_is_refused(sleeping: Path):
    (sleeping / "pins" / "new.json").write_text("{}")
    status, said = finish(kiln(sleeping, "--ray", "127.0.0.1:1"))
    assert (status, said) == (1, "error: files differ from the commit: pins/new.json; commit or restore them\n")


def test_an_address_where_nothing_answers_is_one_line(sleeping: Path):
    status, said = finish(kiln(sleeping, "--ray", "127.0.0.1:1"))
    assert status == 1
    assert said.splitlines()[-1].startswith("error: connecting to Ray at 127.0.0.1:1: ")
    assert "Traceback" not in said
