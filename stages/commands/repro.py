"""Build all that changed and can be built, measure it, say what cannot be and why, and release what passed."""

from __future__ import annotations

import subprocess
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from ruamel.yaml import YAML

from stages.commands.side_by_side import side_by_side
from stages.core import failures, layout, links, params, plan
from stages.summary import show

INTERRUPTED = 130
KEEP_GOING = ["dvc", "repro", "--keep-going"]
EXAMPLE = "kiln repro report@cpu_int8"


def add_arguments(parser: ArgumentParser) -> None:
    """Leave all to `dvc repro`: targets and options."""
    parser.usage = "kiln repro [-h] [TARGET or option of `dvc repro` ...]"
    parser.set_defaults(for_dvc=[])


def run(arguments: Namespace) -> None:
    """Build."""
    repro(arguments.for_dvc)


def repro(arguments: Sequence[str]) -> None:
    """Run `dvc repro` with the arguments, and show the table of the last summary.

    Without arguments, a failed stage keeps back only what needs it: reports, releases and the gate's verdict are made
    of all else.

    Raises:
        SystemExit: with 1 where anything failed or the gate is closed.
    """
    plan.write(params.load())
    links.refuse()
    start = time.time()
    if not arguments and not layout.SUMMARY.exists():
        side_by_side()
    status = _run([*KEEP_GOING, *arguments])
    if status and _remove_torn_locks():
        status = _run([*KEEP_GOING, *arguments])
    if status and not arguments and _began(start):
        failures.note_crashed()
        if (failed := failures.known()) and "environment" not in failed:
            _conclude()
    if layout.SUMMARY.is_file():
        show()
    raise SystemExit(1 if status else 0)


def _remove_torn_locks() -> bool:
    """Remove each dvc.lock that DVC cannot read, as a kill may leave it, and tell whether there was one.

    DVC rewrites these in place. What they had of finished stages its run-cache has too, and restores.
    """
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA

    found = False
    for path in (Path("dvc.lock"), *Path("stages").rglob("dvc.lock")):
        try:
            COMPILED_LOCKFILE_SCHEMA(YAML(typ="safe").load(path.read_bytes()))
        except FileNotFoundError:
            continue
        except Exception as e:  # noqa: BLE001  of a YAML parser and of a schema: torn is torn
            print(f"{path}: torn by a kill ({type(e).__name__}), removed; what it had finished is in DVC's cache")
            path.unlink()
            found = True
    return found


def _began(start: float) -> bool:
    """Tell whether the stage `environment`, with which a build begins, ran since then: DVC may have been busy."""
    return layout.FAILURES.is_dir() and layout.FAILURES.stat().st_mtime >= start


def _conclude() -> None:
    """Make the reports, the releases and the gate of what there is; DVC left them out, as they need all."""
    stages = [stage for stage in failures.index_graph() if failures.block(stage) in failures.AFTER]
    for target in plan.derive(params.load()).reports:
        (layout.REPORTS / "measurements" / target).mkdir(parents=True, exist_ok=True)
    ordered = sorted(stages, key=lambda stage: failures.AFTER.index(failures.block(stage)))
    _run([*KEEP_GOING, "--single-item", *(stage.addressing for stage in ordered)])


def _run(command: Sequence[str]) -> int:
    """Run DVC and return its status.

    Raises:
        SystemExit: it was interrupted or killed; what was built stays, and the next build goes on from there.
    """
    try:
        status = subprocess.run(command, check=False).returncode
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    if status < 0:
        print(f"dvc was stopped by signal {-status}; run it again to go on", file=sys.stderr)
        sys.exit(128 - status)
    if status == INTERRUPTED:
        sys.exit(INTERRUPTED)
    return status
