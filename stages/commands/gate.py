"""Exit with 0 only if every required build and pipeline of the last report passed; else say why, line by line."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from stages import gate
from stages.commands import junit
from stages.core import layout
from stages.core.errors import UserError
from stages.core.files import read_json, write_text
from stages.summary import show

EXAMPLE = "kiln gate --junit reports/junit.xml && echo release it"


def add_arguments(parser: ArgumentParser) -> None:
    """Add the file for a CI that shows results of tests."""
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write the verdicts there too, as JUnit XML")


def run(arguments: Namespace) -> None:
    """Judge the last summary, as the stage of this name does in a build, and show it where the gate is closed.

    The file is written before the gate is judged, so that it is there where the gate is closed.
    """
    summary = read_json(layout.SUMMARY)
    entries = gate.gated(summary)
    if place := arguments.junit:
        text = junit.document(entries, list(gate.problems(summary)))
        try:
            write_text(place, text)
        except OSError as e:
            raise UserError(f"--junit {place}: cannot be written ({e.strerror}); wanted the name of a file") from e
    try:
        gate.main([])
    except UserError:
        show()
        raise
