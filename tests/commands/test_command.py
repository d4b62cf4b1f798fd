"""`kiln`: every command explains itself, its example parses, and it ends with the status that it promises."""

from __future__ import annotations

import importlib
import os
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from stages import commands
from stages.__main__ import main
from stages.commands import repro
from tests.workspace import ROOT

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """The command as an installer makes it of pyproject.toml, in a folder that is not on the PATH."""
    module, function = PYPROJECT["project"]["scripts"]["kiln"].split(":")
    place = tmp_path / "bin" / "kiln"
    place.parent.mkdir()
    (place.parent / "python").symlink_to(sys.executable)
    place.write_text(f"#!{sys.executable}\nfrom {module} import {function}\n{function}()\n")
    place.chmod(0o755)
    return place


def run(script: Path, *arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([script, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", commands.NAMES)
def test_help_has_a_description_and_an_example_that_is_a_command_line(name: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match="0"):
        main([name, "--help"])
    said = capsys.readouterr().out
    module = importlib.import_module(f"stages.commands.{name}")
    assert module.__doc__
    assert module.__doc__.splitlines()[0] in said
    program, *example = shlex.split(module.EXAMPLE.partition(" && ")[0])
    assert f"example: {module.EXAMPLE}" in said
    assert (program, example[0]) == ("kiln", name)
    arguments, others = commands.parser([name]).parse_known_args(example)
    assert arguments.command == name
    assert not others or name == "repro"


def test_a_python_without_the_libraries_is_told_so():
    done = subprocess.run(
        [sys.executable, "-S", "-m", "stages", "doctor"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: Python {sys.version.split()[0]} ({sys.executable}) has no ")
    assert len(done.stderr.splitlines()) == 1


def test_half_an_installation_is_told_so(tmp_path: Path):
    (tmp_path / "requests.py").write_text("raise ModuleNotFoundError(\"No module named 'requests'\", name='requests')")
    paths = {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    command = [sys.executable, "-m", "stages", "doctor"]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **paths}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "has no requests: `rm -f .venv/libraries && make" in done.stderr


def test_every_command_is_listed(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    said = capsys.readouterr().out
    assert [name for name in commands.NAMES if f"\n    {name} " not in said] == []


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        pytest.param(["--version"], 0, f"kiln {PYPROJECT['project']['version']}", id="version"),
        pytest.param(["gate"], 1, "error: reports/summary.json is not there", id="failed"),
        pytest.param(["plan"], 1, "error: params.yaml is not in this folder", id="elsewhere"),
        pytest.param(["gtae"], 2, "invalid choice: 'gtae'", id="unknown-command"),
        pytest.param(["gate", "now"], 2, "unrecognized arguments: now", id="unknown-argument"),
        pytest.param([], 2, "required: COMMAND", id="nothing"),
    ],
)
def test_exit_status(script: Path, tmp_path: Path, arguments: list[str], status: int, said: str):
    done = run(script, *arguments, cwd=tmp_path)
    assert (done.returncode, said in done.stdout + done.stderr) == (status, True)
    assert "Traceback" not in done.stderr


def test_python_m_stages_is_the_same(script: Path):
    arguments = ["plan", "--help"]
    module = [sys.executable, "-m", "stages", *arguments]
    same = subprocess.run(module, cwd=ROOT, capture_output=True, text=True, check=True)
    assert run(script, *arguments).stdout == same.stdout


def test_repro_hands_targets_and_options_to_dvc_as_they_are(monkeypatch: pytest.MonkeyPatch):
    found: list[tuple[list[str], str | None]] = []
    monkeypatch.setattr(repro, "repro", lambda arguments, ray: found.append((arguments, ray)))
    options = ["--force", "report@cpu_int8", "--single-item"]
    for arguments in ([], ["report@cpu_int8"], options, ["--ray", "10.0.0.1:6379", *options]):
        main(["repro", *arguments])
    assert found == [([], None), (["report@cpu_int8"], None), (options, None), (options, "10.0.0.1:6379")]


def test_a_shell_is_told_commands_and_options(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match="0"):
        main(["--print-completion", "bash"])
    completion = capsys.readouterr().out
    assert "sensitivity" in completion
    assert "--smallest" in completion
    bash = shutil.which("bash") or "bash"
    subprocess.run([bash, "-n"], input=completion, text=True, check=True)


@pytest.mark.parametrize("stage", ["gate", "environment", "package", "summary"])
def test_a_stage_that_takes_no_arguments_says_so(stage: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match="2"):
        importlib.import_module(f"stages.{stage}").main(["now"])
    assert f"usage: python -m stages.{stage}" in capsys.readouterr().err
