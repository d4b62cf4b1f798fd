"""A checkpoint inside a wheel: the archive is read, nothing of it is installed or run."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Collection
from pathlib import Path

from stages.core.errors import UserError
from stages.core.files import safe_relative
from stages.core.params import WheelSource
from stages.sources.index import download


def fetch(source: WheelSource, files: Collection[str], folder: Path) -> None:
    """Copy `files` out of the wheel's folder into `folder`.

    Raises:
        UserError: the wheel cannot be had, is not a zip file or lacks a file.
    """
    wheel = download(source.archive)
    try:
        with zipfile.ZipFile(wheel) as archive:
            for name in files:
                member = str(safe_relative(f"{source.folder}/{name}", wheel.name))
                place = folder / name
                place.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as src, place.open("wb") as dst:
                    shutil.copyfileobj(src, dst)
    except KeyError as e:
        raise UserError(f"{wheel.name}: no file {member}") from e
    except zipfile.BadZipFile as e:
        raise UserError(f"{wheel.name} is not a wheel: {e}") from e
