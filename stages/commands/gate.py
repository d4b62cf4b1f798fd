"""Exit with 0 only if every required build and pipeline of the last report passed; else say why, line by line."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from stages import gate
from stages.core import layout
from stages.core.errors import UserError
from stages.summary import show

EXAMPLE = "kiln gate && echo release it"


def add_arguments(_parser: ArgumentParser) -> None:
    """Add none: the command takes no arguments."""


def run(_arguments: Namespace) -> None:
    """Judge the last summary, as the stage of this name does in a build, and show it where the gate is closed."""
    try:
        gate.main([])
    except UserError:
        if layout.SUMMARY.is_file():
            show()
        raise
