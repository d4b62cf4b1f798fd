"""Look at this machine, its libraries and the checkpoints, and say what keeps the configured builds from being made.

Each line has what was found and, where that is not what was wanted, what follows and how to mend it. The exit status
is 1 only where a build would fail, or a required one could not be measured. Nothing is built, changed or removed.
"""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console
from rich.table import Table
from rich.text import Text

from stages import doctor
from stages.core import params
from stages.core.credentials import redacted
from stages.core.errors import UserError
from stages.doctor import matrix
from stages.doctor.finding import Finding
from stages.doctor.subject import select
from stages.summary import WIDTH

EXAMPLE = "kiln doctor paraformer"
STYLES = {"warning": "yellow", "blocks": "bold red"}
COLUMNS = ("check", "level", "found", "wanted", "consequence", "fix")


def add_arguments(parser: ArgumentParser) -> None:
    """Add the model to look at, and the forms for programs and for the documentation."""
    parser.add_argument("model", nargs="?", metavar="MODEL", help="of params.yaml; all that have targets by default")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.add_argument(
        "--matrix", action="store_true", help="print what goes with what, as Markdown, and look no further"
    )


def run(arguments: Namespace) -> None:
    """Print the table.

    Raises:
        UserError: something blocks a build.
    """
    if arguments.matrix:
        print(matrix.markdown(), end="")
        return
    findings = doctor.examine(select(params.load(), arguments.model))
    blocking = sum(finding.level == "blocks" for finding in findings)
    if arguments.json:
        print(redacted(json.dumps([asdict(finding) for finding in findings], indent=2, ensure_ascii=False)))
    else:
        _show(findings)
    if blocking:
        raise UserError(f"doctor: {blocking} of {len(findings)} findings block a build")


def _show(findings: Sequence[Finding]) -> None:
    """Print a line for each thing that is as it should be, then a table of the others."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    table = Table(*COLUMNS, box=None, padding=(0, 2, 1, 0), pad_edge=False, header_style="bold")
    for finding in findings:
        row = [redacted(getattr(finding, column)) for column in COLUMNS]
        if finding.level == "ok":
            console.print(f"{finding.check}: {row[COLUMNS.index('found')]}", markup=False)
        else:
            table.add_row(*(Text(text, STYLES.get(text, "")) for text in row))
    if table.row_count:
        console.print()
        console.print(table)
