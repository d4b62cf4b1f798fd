"""A checkpoint in a folder: one of this repository's miniatures, or an air-gapped mirror of the hub."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection
from pathlib import Path

from stages.core import progress
from stages.core.errors import UserError
from stages.core.files import sha256
from stages.core.params.origins import FolderSource
from stages.core.pins import PinnedFile


def listing(source: FolderSource, taken: Callable[[str], bool]) -> dict[str, PinnedFile | None]:
    """List every file below the folder, with the size and digest of those that are `taken` and not empty.

    The folder of a training run holds every epoch's weights: what is not taken is not read.

    Raises:
        UserError: the folder is not there.
    """
    if not source.path.is_dir():
        raise UserError(f"{source.path} is not a folder; a relative path starts at the repository's root")
    paths = {path.relative_to(source.path).as_posix(): path for path in source.path.rglob("*") if path.is_file()}
    return {name: _pinned(paths[name]) if taken(name) else None for name in sorted(paths)}


def _pinned(path: Path) -> PinnedFile | None:
    size = path.stat().st_size
    return PinnedFile(size=size, sha256=sha256(path)) if size else None


def fetch(source: FolderSource, files: Collection[str], folder: Path) -> None:
    """Copy `files` from the source's folder into `folder`.

    Raises:
        UserError: the folder or one of the files is not there.
    """
    for name in progress.each(list(files), "files copied"):
        origin = source.path / name
        if not origin.is_file():
            raise UserError(f"{origin} is not there")
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(origin, place)
