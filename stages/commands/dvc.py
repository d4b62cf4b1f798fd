"""`python -m stages.commands.dvc PID ...` is `dvc ...`, and ends with the build whose process id is PID."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from stages.core import lifetime, patches


def command(arguments: Sequence[str]) -> list[str]:
    """Return the command line that runs DVC as a child of this process."""
    return [sys.executable, "-m", lifetime.OUR_DVC, str(os.getpid()), *arguments]


def main(argv: Sequence[str]) -> int:
    """Run DVC here and return its status."""
    lifetime.end_with_parent(int(argv[0]))
    from dvc.cli import main as dvc

    sys.argv = ["dvc", *argv[1:]]  # what it names itself by, where another waits for it
    with patches.dvc_params(), patches.dvc_locks():
        status: int = dvc(argv[1:])
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
