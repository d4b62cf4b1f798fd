"""Inputs with something wrong, through what reads them: how many, and how each ended.

    python -m benchmarks.mutations settings recordings graphs

A mutated input may be accepted, where it is sound all the same, or refused in a message. It may never end in a
traceback, a crash or a hang, and what must not be accepted may not be. Those that did are printed to standard error,
and the exit status is 1. Configurations have a test of their own: tests/models/test_config_mutations.py.
"""

from __future__ import annotations

import argparse
import importlib

SUBJECTS = ("settings", "recordings", "graphs")


def main() -> None:
    """Run `python -m benchmarks.mutations [SUBJECT ...]`: print a tally for each subject; exit 1 if any is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("subjects", nargs="*", metavar="SUBJECT", help=f"of {', '.join(SUBJECTS)}; all by default")
    wrong = 0
    for subject in parser.parse_args().subjects or SUBJECTS:
        for tally in importlib.import_module(f"benchmarks.mutations.{subject}").run():
            tally.show()
            wrong += len(tally.wrong)
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
