"""A checkpoint inside a wheel: the archive is read, nothing of it is installed or run."""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path
from typing import cast

from stages.core.errors import UserError
from stages.core.files import safe_relative
from stages.core.params.origins import WheelSource
from stages.core.pins import PinnedFile
from stages.sources.index import download
from stages.sources.transfer import shorten_errors


def listing(source: WheelSource, taken: Callable[[str], bool]) -> dict[str, PinnedFile | None]:
    """List every file below the wheel's folder, with the size and digest of those that are `taken` and not empty.

    Raises:
        UserError: the wheel cannot be had, is not a zip file or has a path that would leave its folder.
    """
    start, listed = f"{source.folder}/", {}
    with _open_wheel(source) as archive:
        for info in archive.infolist():
            if info.filename.startswith(start) and not info.is_dir():
                name = str(safe_relative(info.filename.removeprefix(start), source.archive.file))
                listed[name] = _pinned(archive, info) if taken(name) else None
    return listed


def _pinned(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> PinnedFile | None:
    with archive.open(info) as f:
        digest = hashlib.file_digest(cast(BufferedIOBase, f), "sha256").hexdigest()
    return PinnedFile(size=info.file_size, sha256=digest) if info.file_size else None


def fetch(source: WheelSource, files: Collection[str], folder: Path) -> None:
    """Copy `files` out of the wheel's folder into `folder`.

    Raises:
        UserError: the wheel cannot be had, is not a zip file or lacks a file.
    """
    with _open_wheel(source) as archive:
        for name in files:
            member = str(safe_relative(f"{source.folder}/{name}", source.archive.file))
            if member not in archive.namelist():
                raise UserError(f"{source.archive.file}: no file {member}")
            place = folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as src, place.open("wb") as dst:
                shutil.copyfileobj(src, dst)


@contextmanager
def _open_wheel(source: WheelSource) -> Iterator[zipfile.ZipFile]:
    wheel = download(source.archive)
    with shorten_errors(f"reading {wheel.name}"):
        try:
            with zipfile.ZipFile(wheel) as archive:
                yield archive
        except zipfile.BadZipFile as e:
            raise UserError(f"{wheel.name} is not a wheel: {e}") from e
