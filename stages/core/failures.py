"""Which stages failed in this build, and why: a file each, for the report to read and the next build to clear away.

DVC goes on with all that does not depend on a failed stage; what does depend on it keeps what it made in an earlier
build. So a build is failed where any stage that it is made by failed, whatever measurements lie there.
"""

from __future__ import annotations

import functools
import shutil
from pathlib import Path
from typing import Any

from stages.core import layout
from stages.core.errors import UserError
from stages.core.files import read_json, write_json, write_text

CRASHED = "it left nothing behind: it crashed or was stopped, see the lines above"
ABOUT = "A file for each stage that failed in the last build.\n"  # DVC warns of an empty folder
AFTER = ("report", "summary", "package", "gate")  # stages that say what failed, whatever did


def clear() -> None:
    """Forget what failed in an earlier build."""
    shutil.rmtree(layout.FAILURES, ignore_errors=True)
    layout.FAILURES.mkdir(parents=True)
    write_text(layout.FAILURES / "about.txt", ABOUT)


def record(stage: str, reason: str) -> None:
    """Write down why a stage, named as DVC names it, failed."""
    write_json(_place(stage), {"stage": stage, "reason": reason})


def forget(stage: str) -> None:
    """Remove what was written down of a stage: it did not fail this time."""
    _place(stage).unlink(missing_ok=True)


def _place(stage: str) -> Path:
    return layout.FAILURES / f"{stage}.json"


def known() -> dict[str, str]:
    """Return why each failed stage failed, by its name."""
    records = [read_json(path) for path in sorted(layout.FAILURES.glob("*.json"))]
    return {record["stage"]: record["reason"] for record in records}


def find_cause(*stages: str) -> str | None:
    """Return the first failed stage that any of these needs, or is, with its reason; None where none failed."""
    failed = known()
    if not failed:
        return None
    import networkx as nx

    graph = index_graph()
    wanted = [stage for stage in graph if stage.name in stages]
    needed = {stage.name for one in wanted for stage in nx.descendants(graph, one) | {one}}
    return next((f"{name}: {failed[name]}" for name in failed if name in needed), None)


def note_crashed() -> None:
    """Write down every stage that left no outputs, though all that it needs is there: nothing else tells of a crash."""
    import networkx as nx

    graph, failed = index_graph(), set(known())
    missing = {stage for stage in graph if not all(Path(out.fs_path).exists() for out in stage.outs)}
    for stage in missing:
        if block(stage) in AFTER or stage.name in failed:
            continue
        needed = nx.descendants(graph, stage)
        if not needed & missing and not {one.name for one in needed} & failed:
            record(stage.name, CRASHED)


def index_graph() -> Any:
    """Return DVC's graph of all stages: an edge leads from a stage to one that it needs; read once a process."""
    return _read_graph(Path.cwd())


@functools.cache
def _read_graph(root: Path) -> Any:
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        return Repo(str(root)).index.graph
    except DvcException as e:
        raise UserError(f"DVC cannot read the stages: {e}") from e


def block(stage: Any) -> str:
    """Return the name of a stage without its key: that of its block in dvc.yaml."""
    name: str = stage.name
    return name.partition("@")[0]
