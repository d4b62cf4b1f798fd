"""What `kiln publish` registers is what a clone elsewhere gets by name and version, and verifies."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import chdir
from pathlib import Path

import pytest
from dvc.cli import main as dvc_main

from stages.__main__ import main
from stages.commands import publish
from stages.core import layout
from stages.core.errors import UserError
from tests.release import released
from tests.release.released import BUILD, PUBLIC

pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")  # of DVC's own tries
TAG = f"{BUILD}@v1.0.0"
DVC_YAML = """# as it was written
stages:
  package:
    cmd: cp -r made artifacts/release
    deps: [made]
    outs: [artifacts/release]
"""


def run(*command: str, folder: Path | None = None) -> str:
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


def dvc(*arguments: str, folder: Path = Path()) -> None:
    """Run a command of DVC in this process."""
    with chdir(folder):
        assert dvc_main(list(arguments)) == 0


@pytest.fixture(scope="module")
def template(tiny_export: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a build, beside it the bare one that it came from and an empty remote of DVC."""
    home = tmp_path_factory.mktemp("home")
    run("git", "init", "--quiet", "--bare", str(home / "origin"))
    root = home / "here"
    root.mkdir()
    released.make(root, tiny_export)
    shutil.move(root / layout.RELEASE, root / "made")
    (root / "dvc.yaml").write_text(DVC_YAML)
    (root / ".gitignore").write_text("/artifacts/\n/reports/\n/made/\n*.pem\n")
    run("git", "init", "--quiet", "--initial-branch=main", folder=root)
    run("git", "remote", "add", "origin", "../origin", folder=root)
    dvc("init", "--quiet", folder=root)
    dvc("remote", "add", "--quiet", "--default", "shared", str(home / "shared"), folder=root)
    dvc("repro", "--quiet", folder=root)
    run("git", "add", "--all", ":!*dvc.lock", folder=root)
    run("git", "-c", "user.name=A", "-c", "user.email=a@b.example", "commit", "--quiet", "-m", "All", folder=root)
    run("git", "push", "--quiet", "origin", "main", folder=root)
    return home


@pytest.fixture
def home(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    for name, value in {"NAME": "A", "EMAIL": "a@b.example"}.items():
        monkeypatch.setenv(f"GIT_AUTHOR_{name}", value)
        monkeypatch.setenv(f"GIT_COMMITTER_{name}", value)
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


def test_a_clone_gets_the_version_and_verifies_it(home: Path, capsys: pytest.CaptureFixture[str]):
    before = run("git", "status", "--porcelain"), run("git", "rev-parse", "main")
    main(["publish", BUILD, "--version", "v1.0.0", "--key", PUBLIC])
    assert f"published {TAG}" in capsys.readouterr().out
    assert (run("git", "status", "--porcelain"), run("git", "rev-parse", "main")) == before
    shutil.move("made", "../made")  # nothing of this folder's is used
    run("git", "clone", "--quiet", "origin", "elsewhere", folder=home)
    dvc("artifacts", "get", ".", BUILD, "--rev", "v1.0.0", "--out", "got", folder=home / "elsewhere")
    main(["verify", str(home / "elsewhere" / "got"), "--key", PUBLIC])


def test_a_second_time_changes_nothing_and_finishes_a_push_that_failed(home: Path):
    main(["publish", "--version", "v1.0.0"])
    first = run("git", "rev-parse", f"{TAG}^{{}}")
    run("git", "tag", "--delete", TAG, folder=home / "origin")
    main(["publish"])
    assert run("git", "tag", "--list", folder=home / "origin").split() == [TAG]
    assert run("git", "rev-parse", f"{TAG}^{{}}") == first
    with pytest.raises(UserError, match=f"is {TAG} already; wanted v2"):
        main(["publish", "--version", "v2.0.0"])


def touch_release() -> None:
    with (layout.RELEASE / BUILD / "README.md").open("a") as f:
        f.write("\n")


def touch_tree() -> None:
    with Path("params.yaml").open("a") as f:
        f.write("\n")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (touch_release, "README.md: changed"),
        (touch_tree, "files differ from the commit: params.yaml"),
        (lambda: dvc("config", "--unset", "core.remote"), "as it is committed names no default remote"),
        (lambda: dvc("remote", "modify", "shared", "url", "../shared"), "'shared' is the relative path ../../shared"),
        (lambda: run("git", "remote", "remove", "origin"), "`git push --quiet origin` failed: .*origin"),
    ],
)
@pytest.mark.usefixtures("home")
def test_what_cannot_be_published_ends_in_one_line(spoil, message: str):
    spoil()
    with pytest.raises(UserError, match=message):
        main(["publish", BUILD, "--version", "v1.0.0"])


@pytest.mark.parametrize("version", ["v1", "1.2.0", "v1.2.0 ", ""])
@pytest.mark.usefixtures("home")
def test_a_version_that_is_none_is_refused_before_anything_is_pushed(version: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr(publish, "_dvc")
    with pytest.raises(UserError, match=f"version '{version}': wanted v and three numbers, such as v1.2.0"):
        main(["publish", BUILD, "--version", version])


@pytest.mark.usefixtures("home")
def test_an_unknown_build_is_named():
    with pytest.raises(UserError, match=r"no release 'fsmn_vad-god'.*did you mean 'fsmn_vad-good'"):
        main(["publish", "fsmn_vad-god"])
