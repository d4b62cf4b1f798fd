"""What only the machine with the files can build."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from stages.cluster import inputs
from stages.core import failures, params, plan
from tests import workspace
from tests.workspace import ROOT

pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")  # of DVC's own tries


def test_own_recordings_and_a_checkpoint_in_a_folder_are_read_here_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    place = workspace.repository(tmp_path)
    monkeypatch.chdir(place)
    for folder in ("pins", "searches", "benchmarks/gpu", "zoo/paraformer"):
        shutil.copytree(ROOT / folder, place / folder)
    shutil.copytree(ROOT / "zoo/paraformer", place / "data/mine")
    (place / ".gitignore").write_text("/data/\n")
    settings = YAML(typ="safe").load(place / "params.yaml")
    model = settings["models"]["paraformer"] | {"targets": ["cpu_fp32"]}
    mine = model | {"dataset": "own", "sources": [{"kind": "folder", "path": "data/mine"}]}
    datasets = {model["dataset"]: settings["datasets"][model["dataset"]]}
    datasets["own"] = {"kind": "manifest", "path": str(tmp_path / "data")}
    settings |= {"models": {"theirs": model, "mine": mine}, "pipelines": {}, "datasets": datasets}
    YAML().dump(settings, place / "params.yaml")
    for name in ("theirs", "mine"):
        shutil.copy(ROOT / "pins/paraformer.json", place / f"pins/{name}.json")
    plan.write(params.load())
    subprocess.run(["git", "add", "--all"], check=True)
    bound = inputs.bound(failures.index_graph(), params.load())
    assert {stage.name for stage in bound} == {"corpus@own", "fetch@mine"}
