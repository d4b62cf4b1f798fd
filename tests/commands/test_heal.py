"""What a kill of DVC tore is mended before a command starts, and said; what is whole, or in use, is left alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from stages.commands import heal
from stages.commands.heal import RWLOCK

LOCK = """schema: '2.0'
stages:
  export@a:
    cmd: python run.py
    deps:
    - path: in
      hash: md5
      md5: 900150983cd24fb0d6963f7d28e17f72
      size: 3
    outs:
    - path: out
      hash: md5
      md5: d41d8cd98f00b204e9800998ecf8427e
      size: 0
  export@b:
    cmd: python run.py
"""
IN_USE = '{"write": {"/out": {"pid": 1, "cmd": "dvc repro"}}, "read": {}}'


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    files: dict[str | Path, str] = {RWLOCK: '{"write": {}, "read": {}}', "dvc.lock": LOCK, "stages/x/dvc.lock": LOCK}
    for path, text in files.items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(text)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        pytest.param("dvc.lock", "", id="lock-empty"),
        pytest.param("stages/x/dvc.lock", LOCK[:90], id="lock-of-a-folder"),
        pytest.param("dvc.lock", LOCK[: LOCK.index("    cmd")], id="stage-without-a-command"),
        pytest.param("dvc.lock", LOCK[: LOCK.index("md5: d41d8") + 10], id="half-a-digest-that-can-be-read"),
        pytest.param("dvc.lock", LOCK + "\0", id="not-yaml"),
        pytest.param(str(RWLOCK), "", id="rwlock-empty"),
        pytest.param(str(RWLOCK), IN_USE[:30], id="rwlock-cut"),
        pytest.param(str(RWLOCK), IN_USE, id="rwlock-of-a-process-id-that-another-has-now"),
    ],
)
def test_what_is_torn_is_removed_and_named(path: str, text: str, capsys: pytest.CaptureFixture[str]):
    Path(path).write_text(text)
    heal.heal()
    assert not Path(path).exists()
    [said] = capsys.readouterr().out.splitlines()
    assert said.startswith(f"{path}: ")
    heal.heal()
    assert capsys.readouterr().out == ""


def test_conflicts_of_a_merge_are_called_so(capsys: pytest.CaptureFixture[str]):
    Path("dvc.lock").write_text(f"<<<<<<< HEAD\n{LOCK}=======\n>>>>>>> theirs\n")
    heal.heal()
    assert capsys.readouterr().out.startswith("dvc.lock: a merge left its conflicts in it, removed; ")
    assert not Path("dvc.lock").exists()


@pytest.mark.parametrize("text", [LOCK, LOCK[: LOCK.index("  export@b")]], ids=["whole", "cut-between-two-stages"])
def test_what_dvc_can_use_stays(text: str, capsys: pytest.CaptureFixture[str]):
    Path("dvc.lock").write_text(text)
    for _ in range(2):
        heal.heal()
    assert Path("dvc.lock").read_text() == text
    assert RWLOCK.exists()
    assert capsys.readouterr().out == ""


def test_a_lock_that_changed_since_it_was_found_whole_is_read_again():
    heal.heal()
    Path("dvc.lock").write_text(LOCK[:90])
    heal.heal()
    assert not Path("dvc.lock").exists()


def test_nothing_is_touched_while_dvc_runs_here(tmp_path: Path):
    (tmp_path / "dvc").write_text("import time\ntime.sleep(60)\n")
    Path("dvc.lock").write_text("")
    RWLOCK.write_text("{")
    process = subprocess.Popen([sys.executable, "dvc", "status"])
    try:
        heal.heal()
        assert Path("dvc.lock").exists()
        assert RWLOCK.exists()
    finally:
        process.kill()
        process.wait()
    heal.heal()
    assert not Path("dvc.lock").exists()
    assert not RWLOCK.exists()


def test_outside_a_dvc_project_there_is_nothing_to_heal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    heal.heal()
    assert list(Path().iterdir()) == []
