"""What a worker of Ray runs: unpack the commit into a folder of its own, and run the commit's code there.

Ray sends this module to workers by value, as it is: it imports nothing but the standard library.
"""

from __future__ import annotations

import fcntl
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PREFIX = "kiln-part-"
THREADS = "OMP_NUM_THREADS"  # which Ray sets: with another number of threads, torch sums in another order
SHARED = ".cache"  # of the checkout from which the worker was installed: downloads, older ONNX Runtimes


def run(archive: bytes, arguments: Sequence[str], environment: Mapping[str, str], *, alone: bool) -> dict[str, Any]:
    """Run `python -m stages.cluster.worker` in a copy of the commit and return what it reports.

    archive: a tar file of the commit. alone: nothing else of Kiln's runs on the machine meanwhile. Where it reports
    nothing, `trouble` is the last line that it said.
    """
    _sweep()  # for room on the disk
    try:
        with _take_turn(alone=alone), tempfile.TemporaryDirectory(prefix=f"{PREFIX}{os.getpid()}-") as scratch:
            return _run(Path(scratch), archive, arguments, environment)
    except OSError as e:
        return {"trouble": str(e)}
    finally:
        _sweep()


def _run(scratch: Path, archive: bytes, arguments: Sequence[str], environment: Mapping[str, str]) -> dict[str, Any]:
    clone, result = scratch / "clone", scratch / "result.json"
    with tarfile.open(fileobj=io.BytesIO(archive)) as commit:
        commit.extractall(clone, filter="data")
    subprocess.run(["git", "init", "--quiet"], cwd=clone, check=True)
    if shared := _shared():
        (clone / SHARED).symlink_to(shared)
    own = {name: value for name, value in os.environ.items() if name != THREADS}
    own["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), own.get("PATH", os.defpath)])
    own["DVC_SITE_CACHE_DIR"] = str(scratch / "site")  # DVC's processes would wait for each other's
    command = [sys.executable, "-m", "stages.cluster.worker", str(os.getpid()), str(result), *arguments]
    done = subprocess.run(command, cwd=clone, env={**own, **environment}, capture_output=True, text=True, check=False)
    if result.is_file():
        return dict(json.loads(result.read_text(encoding="utf-8")))
    return {"trouble": next(iter(done.stderr.strip().splitlines()[::-1]), f"it ended with status {done.returncode}")}


def _shared() -> Path | None:
    """Find the `.cache` of the checkout that this Python runs Kiln from; None where it has none."""
    found = importlib.util.find_spec("stages")
    roots = [
        Path(sys.prefix).parent,
        *(Path(place).parent for place in (found and found.submodule_search_locations) or ()),
    ]
    return next((root / SHARED for root in roots if (root / SHARED).is_dir()), None)


@contextmanager
def _take_turn(*, alone: bool) -> Iterator[None]:
    """Wait until nothing is timed on this machine or, to be alone, until nothing of Kiln's runs here.

    Several nodes of a cluster may be one machine. A worker that is killed gives its turn back.
    """
    place = Path(tempfile.gettempdir(), f"kiln-{os.getuid()}.lock")
    with place.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield


def _sweep() -> None:
    """Remove the folders that workers left behind that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        pid = folder.name.removeprefix(PREFIX).partition("-")[0]
        if not Path("/proc", pid).exists() and Path("/proc").exists():
            shutil.rmtree(folder, ignore_errors=True)
