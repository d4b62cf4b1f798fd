"""`python -m stages COMMAND` is `kiln COMMAND`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn


def explain_missing(error: ModuleNotFoundError) -> str:
    """Say which library this Python has not got, and how it gets it: another Python, or half an installation."""
    here = f"Python {sys.version.split()[0]} ({sys.executable}) has no {error.name}"
    install = "`rm -f .venv/libraries && make .venv/runtime` installs all of the lock"
    return f"{here}: {install}, `. .venv/bin/activate` chooses the Python that has it"


try:
    from stages.commands import COMPLETION, NAMES, load, parser
    from stages.commands.heal import heal
    from stages.core.errors import UserError, entrypoint
except ModuleNotFoundError as e:
    sys.exit(f"error: {explain_missing(e)}")


def main(argv: Sequence[str]) -> None:
    """Run the command that `argv` names; `--help` lists what there is."""
    try:
        _run(argv)
    except ModuleNotFoundError as e:
        raise UserError(explain_missing(e)) from e


def _run(argv: Sequence[str]) -> None:
    wanted = NAMES if COMPLETION in argv else NAMES.keys() & set(argv)
    line = parser(wanted)
    arguments, others = line.parse_known_args(argv)
    if others and "for_dvc" not in arguments:
        line.error(f"unrecognized arguments: {' '.join(others)}")
    arguments.for_dvc = others
    if arguments.command != "doctor":  # which says what is torn
        heal()
    load(arguments.command).run(arguments)


def command() -> NoReturn:
    """Run `kiln`; its children find `dvc` and `python` of the same environment, activated or not."""
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    entrypoint(main)


if __name__ == "__main__":
    command()
