"""What `bootstrap` runs in a copy of the commit: `python -m stages.cluster.worker PID RESULT facts`, or `build STAGES`.

PID is the parent's process id, RESULT the file that it reports in.
"""

from __future__ import annotations

import io
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stages import environment
from stages.commands.build import Build
from stages.commands.display import Silent
from stages.commands.tally import Tally
from stages.core import lifetime
from stages.core.files import write_json
from stages.core.git import LOCK

FULL = ("No space left on device", "no space left on the disk", "Disk quota exceeded")
PATIENCE = 300.0  # seconds that DVC may wait for its remote


def build(stages: Sequence[str], patience: float = PATIENCE) -> dict[str, Any]:
    """Build stages and all that they need, or restore what DVC's remote has of them, and push what was made.

    Returns:
        `built` are those of the stages that are there, `ran` the seconds of each stage that ran, `locks` the text of
        each dvc.lock, and `trouble` is what came between, if it is no stage's failure.
    """
    options, log = ["--pull", "--keep-going"], io.StringIO()
    here = Build(Silent(), Tally(options), log)
    here.run(["repro", *options, *stages], patience=patience)
    built = [stage for stage in stages if here.tally.has_built(stage)]
    trouble = _describe_failure(here)
    if built and not trouble and here.run(["push", "--run-cache", *built], patience=patience):
        trouble = _describe_failure(here) or "DVC could not push what was built"
    return {
        "built": built,
        "ran": {stage: seconds for stage, seconds in here.tally.ran.items() if stage not in here.tally.failed},
        "restored": sorted(here.tally.restored),
        "failed": here.tally.failed,
        "locks": {str(path): path.read_text(encoding="utf-8") for path in sorted(Path().rglob(LOCK))},
        "log": log.getvalue(),
        "trouble": trouble,
    }


def _describe_failure(here: Build) -> str | None:
    said = [*here.errors, *(line for lines in here.tally.failed.values() for line in lines)]
    if full := next((line for line in said if any(words in line for words in FULL)), None):
        return full
    return here.errors[0] if here.errors else None


def main(argv: Sequence[str]) -> None:
    """Report the facts of this machine, or build stages."""
    parent, result, command, *stages = argv
    lifetime.end_with_parent(int(parent))
    if command == "facts":
        write_json(Path(result), {"host": platform.node(), "facts": environment.facts(), "trouble": None})
    else:
        write_json(Path(result), build(stages))


if __name__ == "__main__":
    main(sys.argv[1:])
