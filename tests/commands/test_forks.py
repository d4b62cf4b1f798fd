"""A stage that is a fork ends, speaks and works where it should, as one that Python starts."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import pytest

from stages.commands import forks
from stages.core.patches import dvc as patches
from tests.workspace import ROOT

START = """
import os, psutil, sys
from stages.commands import forks
forks.LIBRARIES = ("xml.dom",)  # which is imported sooner than what stages need
environment = os.environ | {"WHO": "a stage", "DVC_STAGE": "made@up"}
process = forks.start(sys.argv[1], sys.argv[2:], os.environ["PLACE"], environment)
print(psutil.Process(process.pid).environ().get("DVC_STAGE"), flush=True)
process.join()
sys.exit(process.exitcode)
"""
STAGE = """
import os, sys
from pathlib import Path
from stages.core.errors import UserError, entrypoint

def main(argv):
    Path(argv[0]).write_text(f"{os.environ['WHO']} {'xml.dom' in sys.modules}")
    if argv[0] == "mistake":
        raise UserError("found 1, wanted 2")
    if argv[0] == "bug":
        raise KeyError("https://name:secret@host")

if __name__ == "__main__":
    entrypoint(main)
"""


@pytest.mark.parametrize(
    ("how", "status", "said"),
    [
        pytest.param("well", 0, "", id="well"),
        pytest.param("mistake", 1, "error: found 1, wanted 2\n", id="mistake"),
        pytest.param("bug", 1, "in main", id="bug"),
    ],
)
def test_a_fork_ends_as_a_process_of_its_own_does(tmp_path: Path, how: str, status: int, said: str):
    (tmp_path / "made_up.py").write_text(STAGE)
    path = os.pathsep.join([str(ROOT), str(tmp_path)])
    environment = {**os.environ, "PYTHONPATH": path, "PLACE": str(tmp_path)}
    for command in (["-c", START, "made_up", how], ["-m", "made_up", how]):
        alone = {} if command[0] == "-c" else {"WHO": "a stage"}
        done = subprocess.run(
            [sys.executable, *command],
            cwd=tmp_path,
            env=environment | alone,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == status, done.stderr
        assert command[0] == "-m" or done.stdout == "made@up\n"  # a later build knows by it what a killed one left
        assert said in done.stderr
        assert "secret" not in done.stderr
        assert (tmp_path / how).read_text() == f"a stage {command[0] == '-c'}"


def test_dvc_runs_our_stages_so_and_other_commands_as_ever(tmp_path: Path):
    from dvc.stage import run
    from dvc.stage.exceptions import StageCmdFailedError

    started = []

    class Ended:
        def __init__(self, module: str, *settings: object) -> None:
            self.exitcode = int(module == "stages.export")
            started.append((module, *settings))

        def join(self) -> None:
            pass

    before, settings = getattr(run, patches.RUN), {"cwd": str(tmp_path), "env": dict(os.environ)}
    with patches.dvc_stages(cast("Any", Ended)):
        getattr(run, patches.RUN)("/bin/sh", "python -m stages.fetch a", **settings)
        getattr(run, patches.RUN)("/bin/sh", "echo well > said", **settings)
        with pytest.raises(StageCmdFailedError, match=r"python -m stages.export a"):
            getattr(run, patches.RUN)("/bin/sh", "python -m stages.export a", **settings)
    assert [words[:2] for words in started] == [("stages.fetch", ["a"]), ("stages.export", ["a"])]
    assert (tmp_path / "said").read_text() == "well\n"
    assert getattr(run, patches.RUN) is before


def test_the_fork_server_has_no_code_of_ours():
    """Else a stage would run what was on the disk when the build began; what is installed imports nothing of ours."""
    installed = {Path(sysconfig.get_path(kind)) for kind in ("purelib", "platlib")}
    places = {name: Path(str(getattr(find_spec(name), "origin", None))) for name in forks.LIBRARIES}
    assert [name for name, place in places.items() if not installed & {*place.parents}] == []
