"""`python -m stages COMMAND` is `kiln COMMAND`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from stages.commands import COMPLETION, NAMES, load, parser
from stages.commands.heal import heal
from stages.core.errors import entrypoint


def main(argv: Sequence[str]) -> None:
    """Run the command that `argv` names; `--help` lists what there is."""
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
