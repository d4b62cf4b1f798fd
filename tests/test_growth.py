"""What a model and a target cost in files and lines, and how long a module may be."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from stages.__main__ import main
from tests import workspace
from tests.workspace import ROOT

DERIVED = "plan.yaml"  # which a command writes and nobody edits
MOST_LINES = 300
LONGER: dict[str, str] = {}  # each with its reason


def git(*arguments: str) -> str:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def commit() -> None:
    git("commit", "--quiet", "--allow-empty", "--message", "a change")


def edited() -> dict[str, tuple[int, int]]:
    """The files that were touched since the last commit, with the lines added and removed; that is committed then."""
    git("add", "--all")
    rows = [line.split("\t") for line in git("diff", "--cached", "--numstat").splitlines()]
    commit()
    return {path: (int(added), int(removed)) for added, removed, path in rows if path != DERIVED}


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what DVC and the commands read of this tree, committed."""
    place = workspace.repository(tmp_path)
    shutil.copytree(ROOT / "pins", place / "pins")
    shutil.copytree(ROOT / "zoo" / "paraformer", place / "zoo" / "mine")
    monkeypatch.chdir(place)
    git("add", "--all")
    commit()
    return place


@pytest.mark.usefixtures("repository")
def test_a_model_is_one_entry_and_a_pin_and_a_target_a_name_in_a_list():
    main(["add", "mine", "--from", "zoo/mine", "--targets", "cpu_fp32,cpu_int8"])
    model = edited()
    assert model.keys() == {"params.yaml", "pins/mine.json"}
    assert model["params.yaml"] == (8, 0)
    text = Path("params.yaml").read_text()
    before = "targets: [cpu_fp32, cpu_int8]\n"
    assert text.count(before) == 1
    Path("params.yaml").write_text(text.replace(before, "targets: [cpu_fp32, cpu_int8, cpu_fp32_opt]\n"))
    main(["plan"])
    assert edited() == {"params.yaml": (1, 1)}
    main(["plan"])
    assert git("status", "--porcelain") == ""


def test_no_module_has_more_than_300_lines_without_a_reason():
    lengths = {path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines()) for path in modules()}
    assert {name for name, length in lengths.items() if length > MOST_LINES} == set(LONGER)


def modules() -> list[Path]:
    return sorted((ROOT / "stages").rglob("*.py"))
