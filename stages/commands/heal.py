"""Remove lock files that DVC cannot read: it rewrites them in place, where a kill tears them, and git merges them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from ruamel.yaml import YAML

from stages.core import layout, lifetime
from stages.core.files import read_json, sha256, write_json

CONFLICT = re.compile(rb"^<<<<<<< ", re.MULTILINE)
RWLOCK = Path(".dvc/tmp/rwlock")  # who reads and writes which path
WHOLE = layout.BUILDS / "locks.json"  # the digests of lock files that were found whole: to parse all costs a second


def heal() -> None:
    """Remove torn lock files of DVC, a line for each, unless a DVC runs here that may just be writing them.

    What a dvc.lock had of finished stages DVC's run-cache has too and restores: it is written first. So a lock that was
    cut between two stages needs nothing.
    """
    if not RWLOCK.parent.is_dir():
        return
    now = _digests()
    broken = _torn(now)
    if (broken or _is_in_use()) and not lifetime.dvc_in(Path.cwd()):
        _remove(broken)
    if not broken and _known() != now:
        write_json(WHOLE, now)


def describe(path: str) -> str:
    """Say what a lock file that is not whole has come to."""
    text = Path(path).read_bytes() if Path(path).is_file() else b""
    return "a merge left its conflicts in it" if CONFLICT.search(text) else "torn by a kill"


def torn() -> list[str]:
    """Return the paths of torn lock files, and mend nothing; none while a DVC runs here."""
    if lifetime.dvc_in(Path.cwd()):
        return []
    return [*_torn(_digests()), *([str(RWLOCK)] if _is_in_use() else [])]


def _torn(digests: Mapping[str, str]) -> list[str]:
    """Return the paths of the dvc.lock that DVC cannot read, of those that were not found whole before."""
    known = _known()
    return [path for path, digest in digests.items() if known.get(path) != digest and not _is_whole(Path(path))]


def _known() -> dict[str, str]:
    """Return the digests of lock files that were found whole."""
    return dict(read_json(WHOLE)) if WHOLE.is_file() else {}


def remember() -> None:
    """Record the lock files as whole: DVC just ended well, and read all of them."""
    write_json(WHOLE, _digests())


def _digests() -> dict[str, str]:
    """Return the digest of each dvc.lock by its path."""
    locks = (Path("dvc.lock"), *sorted(Path("stages").rglob("dvc.lock")))
    return {str(path): sha256(path) for path in locks if path.is_file()}


def _is_whole(lock: Path) -> bool:
    """Tell whether DVC can read a dvc.lock, and its last line is whole: a digest cut short can be read too."""
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA

    text = lock.read_bytes()
    try:
        COMPILED_LOCKFILE_SCHEMA(YAML(typ="safe").load(text))
    except Exception:  # noqa: BLE001  of a YAML parser and of a schema: torn is torn
        return False
    return text.endswith(b"\n")


def _is_in_use() -> bool:
    """Tell whether the lock of paths names any, or is torn."""
    try:
        return any(json.loads(RWLOCK.read_bytes()).values())
    except FileNotFoundError:
        return False
    except (ValueError, AttributeError):
        return True


def _remove(torn: list[str]) -> None:
    for path in torn:
        why = describe(path)
        Path(path).unlink()
        print(f"{path}: {why}, removed; what it had finished is restored from DVC's cache")
    if _is_in_use():  # by a process that is gone, and whose id another may have by now
        RWLOCK.unlink()
        print(f"{RWLOCK}: left by a DVC that was killed, removed")
