"""`python -m stages.commands.dvc PID ...` is `dvc ...`, and ends with the build whose process id is PID.

`PID --forked ...` starts stages as forks of one process, for a list of many.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext

from stages.commands import forks
from stages.core import lifetime
from stages.core.patches.dvc import dvc_once, dvc_stages

FORKED = "--forked"


def command(arguments: Sequence[str], *, forked: bool = False) -> list[str]:
    """Return the command line that runs DVC as a child of this process; forked: with stages that are forks."""
    return [sys.executable, "-m", lifetime.OUR_DVC, str(os.getpid()), *([FORKED] if forked else []), *arguments]


def main(argv: Sequence[str]) -> int:
    """Run DVC here and return its status."""
    lifetime.end_with_parent(int(argv[0]))
    from dvc.cli import main as dvc

    forked = argv[1] == FORKED
    arguments = argv[2:] if forked else argv[1:]
    sys.argv = ["dvc", *arguments]  # what it names itself by, where another waits for it
    forking = dvc_stages(forks.start) if forked else nullcontext()
    with dvc_once(), forking:
        status: int = dvc(arguments)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
