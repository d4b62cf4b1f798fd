"""A checkpoint in a folder of this machine, such as an air-gapped mirror of the hub."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path

from stages.core.errors import UserError
from stages.core.params import FolderSource


def fetch(source: FolderSource, files: Collection[str], folder: Path) -> None:
    """Copy `files` from the source's folder into `folder`.

    Raises:
        UserError: the folder or one of the files is not there.
    """
    for name in files:
        origin = source.path / name
        if not origin.is_file():
            raise UserError(f"{origin} is not there")
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(origin, place)
