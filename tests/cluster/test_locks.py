"""What workers built, in DVC's lock files of this tree."""

from __future__ import annotations

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from stages.cluster import locks

DIGEST = "1234567890e1234567890123456789ab"  # which YAML 1.1 might read as a number


def lock(**stages: str) -> str:
    entries = [
        f"  {name}:\n    cmd: make\n    outs:\n    - {{path: out, md5: {md5}}}\n" for name, md5 in stages.items()
    ]
    return "".join(["schema: '2.0'\nstages:\n", *entries])


def test_built_stages_replace_what_was_there_and_the_rest_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.lock").write_text(lock(kept="0a", replaced="0b"))
    first = {"dvc.lock": lock(replaced=DIGEST, not_asked_for="0c"), "stages/dag/x/dvc.lock": lock(fetch="0d")}
    (tmp_path / "stages/dag/x").mkdir(parents=True)
    locks.merge(
        [first, {"stages/dag/x/dvc.lock": lock(export="0e")}],
        {"replaced", *(f"stages/dag/x/dvc.yaml:{s}" for s in ("fetch", "export"))},
    )
    read = YAML(typ="safe").load
    found = read(Path("dvc.lock"))["stages"]
    assert {name: stage["outs"][0]["md5"] for name, stage in found.items()} == {"kept": "0a", "replaced": DIGEST}
    assert [*read(Path("stages/dag/x/dvc.lock"))["stages"]] == ["fetch", "export"]


def test_a_lock_file_of_which_nothing_was_asked_for_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    locks.merge([{"stages/dvc.lock": lock(environment="0a")}], set())
    assert not (tmp_path / "stages").exists()
