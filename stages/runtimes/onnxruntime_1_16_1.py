"""ONNX Runtime 1.16.1, which FunASR's C++ server has on Windows: measured in a process that has it in place of ours.

Two versions cannot be in one process, and this one wants NumPy 1. Both lie in `older.FOLDER`. A stage that measures a
target of this runtime starts itself again with that folder first on its path, so that the plain export, the baseline of
all latencies, runs in the same version.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from stages.core import graphs
from stages.core.errors import UserError
from stages.core.graphs import GraphSet
from stages.core.parity import Network
from stages.runtimes import older, onnxruntime

VERSION = "1.16.1"


def why_unavailable() -> str | None:
    """Explain why this version is not here, or return None."""
    if VERSION in older.versions():
        return None
    return (
        f"ONNX Runtime {VERSION} is not in {older.FOLDER}: `make` installs it for Python 3.11, newer ones have no wheel"
    )


def enter(stage: str, argv: Sequence[str]) -> None:
    """Start a stage again, in place of this process, with this version; return where it is in it."""
    if _is_here():
        return
    found = os.environ.get("PYTHONPATH")
    path = os.pathsep.join([str(_folder()), *([found] if found else [])])
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, "-m", f"stages.{stage}", *argv], os.environ | {"PYTHONPATH": path})  # noqa: S606  itself


def load(folder: Path, graph_set: GraphSet, threads: int = 1) -> dict[str, Network]:
    """Load every graph of a folder, each as a function of named inputs.

    Raises:
        UserError: as in `onnxruntime.network`, or this process has another version.
    """
    if not _is_here():
        wanted = f"{VERSION}, as in a process that evaluates or benchmarks a target of this runtime"
        raise UserError(f"{folder}: found another ONNX Runtime in this process, wanted {wanted}")
    networks = {}
    with tempfile.TemporaryDirectory() as scratch:  # it looks for large weights beside the graph alone
        for name, graph in graph_set.graphs.items():
            with graphs.whole(folder / graph.file, Path(scratch)) as place:
                networks[name] = onnxruntime.network(place, graph, threads, weights=place.parent)
    return networks


def _folder() -> Path:
    return (older.FOLDER / VERSION).resolve()


def _is_here() -> bool:
    """Tell whether the ONNX Runtime that this process imports, or has imported, is this version's."""
    spec = importlib.util.find_spec("onnxruntime")
    return spec is not None and spec.origin is not None and Path(spec.origin).resolve().is_relative_to(_folder())
