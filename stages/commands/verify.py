"""Exit with 0 only if a release folder is what it was when it was made; else name each file that is not.

That is: no file is changed, missing or extra, the graphs are those that were measured, and, with `--key`, its owner
signed all of it. Nothing is asked of the network.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from stages.release import verification

EXAMPLE = "kiln verify artifacts/release/fsmn_vad-cpu_int8 --key key.pub"


def add_arguments(parser: ArgumentParser) -> None:
    """Take folders, and the public key of who signed them."""
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="a folder of artifacts/release")
    parser.add_argument("--key", type=Path, help="elliptic-curve public key in PEM, of whoever should have signed it")


def run(arguments: Namespace) -> None:
    """Check each folder."""
    for folder in arguments.folders:
        print(f"{folder}: as it was released; {verification.check(folder, arguments.key)}")
