"""Only `fetch` and `corpus` may use the network, and no library tells its maker of its use.

Every stage but `pipeline` runs on one tiny model behind tests/guard.py. That one needs four models, which would take
half a minute; of it runs here what no other stage has.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stages import QUIET
from stages.__main__ import main as command
from stages.core import params
from stages.core.files import read_json
from tests.catalogue.test_replicas import HURRIED, ITEMS
from tests.workspace import ROOT
from zoo import alone

MODEL, DATASET = "fsmn_vad", "vad_mixtures"
TARGETS = ("cpu_pruned_int8", "trt_rtx_fp16")
FONTS = {".cache", ".cache/matplotlib", ".config", ".config/matplotlib"}  # matplotlib's list of them
FROM_ELSEWHERE = ("connect", "create_connection(('192.0.2.1', 80), 1)"), ("look-up", "getaddrinfo('kiln.invalid', 80)")


def python(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python with an empty home, and without what tells a library that it is in a CI or to be quiet."""
    told = {"CI", *QUIET}
    kept = {name: value for name, value in os.environ.items() if name not in told and not name.startswith("XDG_")}
    home.mkdir()
    environment = kept | {"HOME": str(home), "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False)


def below(home: Path) -> set[str]:
    """List a folder's files and folders, without the fonts' own names."""
    found = {path.relative_to(home).as_posix() for path in home.rglob("*")}
    return {name for name in found if not name.startswith(".cache/matplotlib/")}


@pytest.fixture
def steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_checkpoint: Path, tiny_corpus: Path) -> list[str]:
    """A repository that has one tiny model and data of its own, and its stages in order."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_corpus, "speech")
    shutil.copytree(tiny_checkpoint, "checkpoint")
    with alone.settings(ROOT / "params.yaml") as found:
        alone.hurry(found, ITEMS, HURRIED)
        alone.leave_only(found, MODEL)
        found["pipelines"] = {}
        for gate in found["gates"].values():
            gate.pop("optional", None)
        found["models"][MODEL] |= {"sources": [{"kind": "folder", "path": "checkpoint"}], "targets": list(TARGETS)}
        found["datasets"] = {DATASET: {"kind": "manifest", "path": "speech"}}
    command(["pin", MODEL])
    command(["plan"])
    steps = [f"{stage}@{key}" if key else stage for stage, key in alone.steps(params.load(), MODEL)]
    return [*steps, "package", "gate"]


def test_stages_open_no_socket_leave_no_file_under_the_home_and_show_no_progress_in_a_log(
    tmp_path: Path, steps: list[str]
):
    home = tmp_path / "home"
    done = python(home, "-m", "tests.guard", *steps)
    assert done.returncode == 1, done.stderr  # the network is tiny: the gate, which is last, lets nothing through
    assert done.stderr.startswith("Traceback"), done.stderr  # no stage before the gate shows its progress in a log
    assert done.stderr.splitlines()[-1].startswith("  fsmn_vad-cpu_pruned_int8: ")
    simplified = read_json(Path(f"artifacts/{MODEL}/dense/simplify/simplify.json"))["model"]
    assert "signal" not in str(simplified["kept_because"])  # a child's end is no end of the stage
    assert below(home) <= FONTS


def test_inverse_text_normalisation_of_the_pipeline_opens_no_socket_and_leaves_no_file(tmp_path: Path):
    home, text = tmp_path / "home", "print(pipeline.normalizer()('一百二十'))"
    done = python(home, "-c", f"from tests import guard; guard.install(); from stages import pipeline; {text}")
    assert (done.returncode, done.stdout) == (0, "120\n"), done.stderr
    assert below(home) <= FONTS


@pytest.mark.parametrize("call", [pytest.param(call, id=name) for name, call in FROM_ELSEWHERE])
def test_the_guard_ends_who_asks_for_the_network_and_says_where(tmp_path: Path, call: str):
    done = python(tmp_path / "home", "-c", f"import socket; from tests import guard; guard.install(); socket.{call}")
    assert done.returncode < 0
    assert 'File "<string>", line 1' in done.stderr


@pytest.mark.parametrize(("line", "leaves"), [("import onnxruntime", True), ("import stages, onnxruntime", False)])
def test_onnxruntime_keeps_a_device_id_unless_kiln_is_there(tmp_path: Path, line: str, *, leaves: bool):
    home = tmp_path / "home"
    assert python(home, "-c", line).returncode == 0
    assert any("onnxruntime" in path for path in below(home)) == leaves
