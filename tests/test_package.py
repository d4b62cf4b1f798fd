"""What a release says of the commit that it was built from."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from stages import package


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    who = ["-c", "user.name=kiln", "-c", "user.email=kiln@localhost"]
    subprocess.run(["git", "init", "--quiet"], check=True)
    subprocess.run(["git", *who, "commit", "--quiet", "--allow-empty", "-m", "one"], check=True)
    return tmp_path


@pytest.mark.usefixtures("repository")
def test_the_commit_is_named():
    assert len(package._commit()) == 40


@pytest.mark.usefixtures("repository")
def test_what_git_refuses_is_quoted(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    assert "dubious ownership" in package._commit()


def test_no_repository_and_no_git_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert "not a git repository" in package._commit()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert package._commit() == "unknown: git: No such file or directory"
