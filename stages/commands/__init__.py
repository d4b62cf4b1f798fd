"""`kiln COMMAND`: what a person runs by hand, from the repository's root; DVC runs the stages."""

from __future__ import annotations

import importlib
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Collection
from pathlib import Path
from typing import Protocol, cast

NAMES = {  # of the modules here that are commands, and what each does
    "repro": "build what changed, measure, report, release what passed",
    "gate": "exit 0 only if every required build of the last report passed",
    "final": "measure required builds on a split that no stage reads",
    "doctor": "exit 0 only if nothing on this machine keeps the configured builds from being made",
    "verify": "exit 0 only if a release folder is what it was when it was made",
    "compare": "say what differs between two release folders or two reports, as Markdown",
    "serve": "serve releases with Triton over HTTP and gRPC",
    "drift": "measure a release on recordings that users collected",
    "publish": "push releases to DVC's remote and register their versions",
    "pin": "write the size and digest of a model's or data set's files to pins/NAME.json",
    "add": "add a model and its builds to params.yaml",
    "data": "make a data set of your own speech",
    "sensitivity": "measure what each layer costs at INT8",
    "tune": "search the best INT8 recipe",
    "plan": "derive plan.yaml, which says what runs, from params.yaml",
}
PROJECT = Path(__file__).parents[2] / "pyproject.toml"
COMPLETION = "--print-completion"
STATUS = "exit status: 0 done, 1 something failed or the gate is closed, 2 wrong usage, 128 + N stopped by signal N"


class Command(Protocol):
    """A module that is a command: its docstring is the description that `--help` prints."""

    EXAMPLE: str

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the arguments that the command takes."""

    def run(self, arguments: Namespace) -> None:
        """Run the command.

        Raises:
            UserError: it cannot be done.
        """


def load(name: str) -> Command:
    """Import the module of a command; some of them need seconds."""
    return cast(Command, importlib.import_module(f"{__name__}.{name}"))


def parser(wanted: Collection[str]) -> ArgumentParser:
    """Return the parser of the whole command line, with the arguments of the wanted commands alone."""
    import shtab

    whole = ArgumentParser(prog="kiln", description=__doc__, epilog=STATUS)
    whole.add_argument("--version", action="version", version=f"%(prog)s {version()}")
    shtab.add_argument_to(whole, COMPLETION, help="print a completion script for this shell")
    commands = whole.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, what in NAMES.items():
        own = commands.add_parser(name, help=what, formatter_class=RawDescriptionHelpFormatter)
        if name in wanted:
            command = load(name)
            own.description, own.epilog = command.__doc__, f"example: {command.EXAMPLE}"
            command.add_arguments(own)
    return whole


def version() -> str:
    """Return the version of this checkout."""
    import tomllib

    found: str = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["version"]
    return found
