"""Which stages read files that the commit does not have, and so can be built on this machine alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stages.core import failures, git, layout
from stages.core.params import Params
from stages.core.params.origins import FolderSource

MADE = (layout.ARTIFACTS, layout.REPORTS)  # by other stages


def bound(graph: Any, p: Params) -> set[Any]:
    """Return the stages of DVC's graph that read a file or folder that is neither in the commit nor made by a stage.

    Such are data sets of the user's own and checkpoints that lie in a folder.
    """
    known = _committed()
    return {stage for stage in graph if any(not _is_there(path, known) for path in _inputs(stage, p))}


def _committed() -> set[Path]:
    """Return all files and folders of the commit, relative to the repository's root."""
    files = [Path(name) for name in git.git("ls-files", "-z").split("\0") if name]
    return {*files, *(folder for file in files for folder in file.parents)}


def _is_there(path: Path, known: set[Path]) -> bool:
    return path in known or any(path.is_relative_to(folder) for folder in MADE)


def _inputs(stage: Any, p: Params) -> list[Path]:
    """Return what a stage reads: what it depends on, and folders that a checkpoint may be fetched from."""
    paths = [Path(dep.fs_path) for dep in stage.deps]
    if failures.block(stage) == "fetch":
        sources = p.models[stage.name.partition("@")[2]].sources
        paths += [Path.cwd() / source.path for source in sources if isinstance(source, FolderSource)]
    here = Path.cwd()
    return [path.relative_to(here) if path.is_relative_to(here) else path for path in paths]
