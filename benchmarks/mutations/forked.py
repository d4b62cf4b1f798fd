"""Run code that may crash, hang or exit in a forked child, and tell how it ended."""

from __future__ import annotations

import io
import os
import pickle
import select
import signal
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from typing import NamedTuple

from stages.core.errors import UserError

SECONDS = 120.0  # a child that runs for longer hangs
ACCEPTED, REFUSED, LINES, TRACEBACK, DIED = "exit 0", "one line", "several lines", "traceback", "died or hung"


class Ending(NamedTuple):
    """How a call ended, one of the names above, and what it said."""

    kind: str
    said: str


def ending(call: Callable[[], object]) -> Ending:
    """Make a call in a forked child, whose output is thrown away, and return how it ended."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        os.write(writer, pickle.dumps(_ending_here(call))[:60_000])
        os._exit(0)
    os.close(writer)
    ready, _, _ = select.select([reader], [], [], SECONDS)
    if not ready:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    said = os.read(reader, 65_536) if ready else b""
    os.close(reader)
    return pickle.loads(said) if said else Ending(DIED, f"status {status}")  # noqa: S301  our own child's


def _ending_here(call: Callable[[], object]) -> Ending:
    sink = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(sink, stream)
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        try:
            call()
        except UserError as e:
            return Ending(LINES if "\n" in str(e).strip() else REFUSED, str(e)[:2000])
        except SystemExit as e:
            return Ending(REFUSED if e.code else ACCEPTED, str(e.code)[:2000])
        except BaseException as e:  # noqa: BLE001  whatever it is, a user would see a traceback
            return Ending(TRACEBACK, f"{type(e).__name__}: {e}"[:2000])
    return Ending(ACCEPTED, "")


class Tally:
    """Counts of how mutated inputs ended, by what read them, with those that ended as they must not."""

    def __init__(self, what: str) -> None:
        """Begin a tally of what reads the inputs."""
        self.what = what
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.bad_accepted = 0

    def add(self, name: str, found: Ending, *, bad: bool) -> None:
        """Count an input, and note it if it ended as it must not; bad: it must not be accepted."""
        self.counts[found.kind] += 1
        silent = bad and found.kind == ACCEPTED
        self.bad_accepted += silent
        if silent or found.kind in {TRACEBACK, DIED}:
            self.wrong.append(f"{self.what}: {name}: {'accepted' if silent else found.kind}: {found.said}")

    def show(self) -> None:
        """Print the counts in one line, and what was wrong."""
        ways = ", ".join(f"{kind} {self.counts[kind]}" for kind in (ACCEPTED, REFUSED, LINES, TRACEBACK, DIED))
        print(f"{self.what}: {self.counts.total()} inputs: {ways}; exit 0 on bad input {self.bad_accepted}", flush=True)
        for line in self.wrong:
            print(f"  {line[:300]}", file=sys.stderr, flush=True)
