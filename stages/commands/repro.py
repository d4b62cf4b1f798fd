"""`python -m stages repro`: build all that can be built, say what cannot and why, and release what passed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

from stages.commands.side_by_side import side_by_side
from stages.core import failures, layout, params, plan
from stages.summary import show

INTERRUPTED = 130
KEEP_GOING = ["dvc", "repro", "--keep-going"]


def repro(arguments: Sequence[str]) -> None:
    """Run `dvc repro` with the arguments, and show the table of the last summary.

    Without arguments, a failed stage keeps back only what needs it: reports, releases and the gate's verdict are made
    of all else.

    Raises:
        SystemExit: with 1 where anything failed or the gate is closed.
    """
    plan.write(params.load())
    if not arguments and not layout.SUMMARY.exists():
        side_by_side()
    status = _run([*KEEP_GOING, *arguments])
    if status and not arguments:
        failures.note_crashed()
        if (failed := failures.known()) and "environment" not in failed:
            _conclude()
    if layout.SUMMARY.is_file():
        show()
    raise SystemExit(1 if status else 0)


def _conclude() -> None:
    """Make the reports, the releases and the gate of what there is; DVC left them out, as they need all."""
    stages = [stage for stage in failures.index_graph() if failures.block(stage) in failures.AFTER]
    for target in plan.derive(params.load()).reports:
        (layout.REPORTS / "measurements" / target).mkdir(parents=True, exist_ok=True)
    ordered = sorted(stages, key=lambda stage: failures.AFTER.index(failures.block(stage)))
    _run([*KEEP_GOING, "--single-item", *(stage.addressing for stage in ordered)])


def _run(command: Sequence[str]) -> int:
    try:
        status = subprocess.run(command, check=False).returncode
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    if status in {INTERRUPTED, -2}:
        sys.exit(INTERRUPTED)
    return status
