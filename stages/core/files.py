"""Files that are either whole or absent: written beside their place and renamed into it."""

from __future__ import annotations

import codecs
import errno
import glob
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from stages.core.errors import UserError

FULL_BYTES = 2**20
LONGEST_NAME, LONGEST_PATH = 255, 1024  # bytes: what every usual file system takes, and leaves room for a folder
RANDOM = 8  # characters that `tempfile` puts into a name


@contextmanager
def new_folder(place: Path) -> Iterator[Path]:
    """Create a temporary folder that becomes `place`, replacing what was there, if the block succeeds.

    A folder that a killed run left behind under the temporary name is removed first. A failure on a
    full disk is reported as that: native writers fail in other words, or write half and say nothing.
    A UserError that names the temporary folder names `place` instead, which is what a user knows.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    for stale in _left_by_a_kill(place):
        shutil.rmtree(stale)
    folder = Path(tempfile.mkdtemp(prefix=f".{place.name}.", suffix=".tmp", dir=place.parent))
    folder.chmod(0o755)
    try:
        yield folder
        if place.exists():
            shutil.rmtree(place)
        folder.replace(place)
    except Exception as e:
        if shutil.disk_usage(folder).free < FULL_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(place)) from e
        if isinstance(e, UserError):
            raise UserError(str(e).replace(str(folder), str(place))) from e
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def scratch_folder(place: Path) -> Iterator[Path]:
    """Make an empty folder at `place` and remove it at the end of the block; one that a kill left is removed first."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def write_text(place: Path, text: str) -> None:
    """Write `text` to `place` through a temporary file in the same folder; one that a killed run left is removed.

    DVC does not see it (.dvcignore), so what depends on the folder does not run again for it.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    for stale in _left_by_a_kill(place):
        stale.unlink(missing_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{place.name}.", suffix=".tmp", dir=place.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as f:
            f.write(text)
        Path(name).chmod(0o644)
        Path(name).replace(place)
    finally:
        Path(name).unlink(missing_ok=True)


def _left_by_a_kill(place: Path) -> Iterator[Path]:
    """Yield what stands under a temporary name of `place`: whoever wrote there is gone, as only one does at a time."""
    yield from place.parent.glob(f".{glob.escape(place.name)}.{'?' * RANDOM}.tmp")


def write_json(place: Path, value: Any) -> None:
    """Write `value` as indented JSON, refusing NaN: a reader in another language could not parse it."""
    write_text(place, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(place: Path) -> Any:
    """Read and parse a JSON file.

    Raises:
        UserError: the file is missing or not JSON, naming the command that makes it.
    """
    try:
        return json.loads(place.read_text(encoding="utf-8"))
    except FileNotFoundError as e:
        raise UserError(f"{place} is not there; `dvc repro` makes it") from e
    except (ValueError, RecursionError) as e:
        raise UserError(f"{place} is not JSON ({e}); remove it and run `dvc repro`") from e


def read_lines(path: Path) -> list[str]:
    """Read the lines of a UTF-8 file: a line feed ends one, with or without a carriage return, and nothing else does.

    A text may hold characters that `str.splitlines` takes for the end of a line, such as U+2028. A byte order mark is
    left out.

    Raises:
        UserError: the file is not there, or a line is not UTF-8.
    """
    try:
        rows = path.read_bytes().removeprefix(codecs.BOM_UTF8).split(b"\n")
    except (FileNotFoundError, IsADirectoryError) as e:
        raise UserError(f"{path} is not there, or not a file") from e
    if not rows[-1]:
        rows.pop()
    return [_decode(row.removesuffix(b"\r"), f"{path} line {number}") for number, row in enumerate(rows, start=1)]


def _decode(row: bytes, where: str) -> str:
    try:
        return row.decode("utf-8")
    except UnicodeDecodeError as e:
        raise UserError(f"{where}: byte {e.start + 1} is not UTF-8; save the file as UTF-8") from e


def sha256(path: Path) -> str:
    """Compute the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def check_sha256(path: Path, wanted: str, what: str) -> None:
    """Raise UserError unless the file's digest is `wanted`."""
    found = sha256(path)
    if found != wanted:
        raise UserError(f"{what}: found sha256 {found} ({path.stat().st_size} bytes), wanted {wanted}")


def safe_relative(name: str, what: str) -> PurePosixPath:
    """Check that `name` is a relative path that stays inside the folder it is joined to, and return it.

    Raises:
        UserError: it is empty, absolute, has a `..`, a backslash or a NUL, or a part longer than file systems take.
    """
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or set(name) & set("\\\0"):
        raise UserError(f"{what}: the path {name!r} would leave its folder; nothing was written")
    longest = max(path.parts, key=lambda part: len(os.fsencode(part)))
    if len(os.fsencode(longest)) > LONGEST_NAME or len(os.fsencode(name)) > LONGEST_PATH:
        found = f"found a path of {len(os.fsencode(name))} bytes with a name of {len(os.fsencode(longest))}"
        raise UserError(f"{what}: {name[:40]!r}...: {found}, wanted at most {LONGEST_PATH} and {LONGEST_NAME}")
    return path
