"""Git, and the commit that is checked out: what others can build who have it and DVC's remote."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from stages.core.errors import UserError, first_of

CONFIG = ".dvc/config"
LOCK = "dvc.lock"  # which DVC writes, and no commit has


def git(*arguments: str, environment: Mapping[str, str] | None = None, given: str | None = None) -> str:
    """Run git and return what it prints.

    Raises:
        UserError: it refused; has its own words.
    """
    done = subprocess.run(
        ["git", *arguments],
        input=given,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise UserError(f"`git {' '.join(arguments[:3])}` failed: {reason(done.stderr)}")
    return done.stdout


def reason(words: str) -> str:
    """Return the first line of what a program that failed printed."""
    return next(iter(words.strip().splitlines()), "it does not say why")


def refuse_changed(*, untracked: bool = False) -> None:
    """Raise UserError where files differ from the commit, DVC's locks apart; `untracked`: or are in none."""
    lines = git("status", "--porcelain", f"--untracked-files={'all' if untracked else 'no'}").splitlines()
    changed = [name for line in lines if not (name := line[3:]).endswith(LOCK)]
    if changed:
        raise UserError(f"files differ from the commit: {first_of(changed)}; commit or restore them")


def refuse_without_remote() -> None:
    """Raise UserError where a clone of the commit would not know where DVC's remote is."""
    from configobj import ConfigObj

    committed = ConfigObj(CONFIG)  # DVC's own reader makes a relative path absolute
    name = committed.get("core", {}).get("remote")
    url = committed.get(f'remote "{name}"', {}).get("url")
    if url and "://" not in url and not Path(url).is_absolute():
        raise UserError(
            f"DVC's remote {name!r} is the relative path {url}, which is another place in a clone; wanted a URL or an"
            " absolute path"
        )
    if not url or git("status", "--porcelain", CONFIG):
        raise UserError(
            f"{CONFIG} as it is committed names no default remote, so a clone would find nothing:"
            f" `dvc remote add --default NAME URL`, and commit {CONFIG}"
        )
