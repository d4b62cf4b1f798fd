"""Which older versions of ONNX Runtime load an artifact, found by loading it in each.

`make` puts them into .cache/onnxruntime/<version>, from the locks in stages/runtimes/older_versions. 1.16.1 is that of
FunASR's server on Windows. None older than 1.15 has a wheel for Python 3.11; benchmarks/NOTES.md says what 1.14 loads.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

from stages.core import graphs, layout

FOLDER = layout.CACHE / "onnxruntime"
# A process of its own: each has another version, and some abort on a graph where others load it.
LOAD = (
    "import sys, onnxruntime as ort\noptions = ort.SessionOptions()\noptions.log_severity_level = 4\n"
    "for graph in sys.argv[1:]:\n    ort.InferenceSession(graph, options, providers=['CPUExecutionProvider'])"
)
SAID = 160  # characters of a message, at most


def versions() -> list[str]:
    """Return the older versions that are here, the oldest first; on a newer Python there are fewer."""
    found = [place.name for place in FOLDER.glob("[0-9]*") if (place / "onnxruntime").is_dir()]
    return sorted(found, key=lambda name: [int(part) for part in name.split(".")])


def oldest(artifact: Path) -> dict[str, Any]:
    """Load the graphs of an artifact in one version after another, the oldest first, until one takes them all.

    Returns:
        `oldest`: that version, or the one that everything here is measured with. `refused`: why others did not.
    """
    refused: dict[str, str] = {}
    with tempfile.TemporaryDirectory(dir=artifact.parent) as scratch, ExitStack() as stack:
        listed = graphs.read(artifact).graphs.values()
        whole = [stack.enter_context(graphs.whole(artifact / graph.file, Path(scratch))) for graph in listed]
        for name in versions():
            if (why := _why_not(name, whole)) is None:
                return {"oldest": name, "refused": refused}
            refused[name] = why
    return {"oldest": version("onnxruntime"), "refused": refused}


def _why_not(name: str, places: Sequence[Path]) -> str | None:
    """Return why a version does not load all of these graphs, or None."""
    path = os.environ | {"PYTHONPATH": str(FOLDER / name)}
    command = [sys.executable, "-c", LOAD, *map(str, places)]
    done = subprocess.run(command, env=path, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode < 0:
        return f"died of signal {-done.returncode}"
    said = (done.stderr.strip().splitlines() or ["no message"])[-1]
    for place in places:
        said = said.replace(str(place), place.name)
    return said[:SAID] if done.returncode else None
