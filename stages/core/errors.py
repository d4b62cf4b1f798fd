"""A user's mistake ends in one clear message; a bug ends in a traceback."""

from __future__ import annotations

import errno
import gc
import re
import sys
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from pathlib import Path
from types import TracebackType
from typing import NoReturn

from stages.core import lifetime
from stages.core.credentials import redacted

FULL = {errno.ENOSPC, errno.EDQUOT}  # there is no space left
ORIGIN = "Exception from "  # how OpenVINO begins the lines that name its own source, before the one that says why


class UserError(Exception):
    """What was being done, to what, what was found, what was wanted, and how to mend it; credentials are hidden."""

    def __init__(self, message: str) -> None:
        """Hide credentials in the message, which may quote an address with a password."""
        super().__init__(redacted(message))


def first_line(error: BaseException) -> str:
    """Return the first line of an exception that says something, without colours and cut to the length of a message."""
    lines = (line.strip() for line in re.sub(r"\x1b\[\d*m", "", str(error)).splitlines())
    return next((line[:200] for line in lines if line and not line.startswith(ORIGIN)), "no reason given")


@contextmanager
def from_library(doing: str) -> Iterator[None]:
    """Turn whatever a library raises in the block into one line that begins with `doing`, what was done and to what.

    Libraries raise a dozen kinds that have no common base. A lack of memory or of disk space stays what it is.

    Raises:
        UserError: the library raised.
    """
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as e:
        if isinstance(e, OSError) and e.errno in FULL:
            raise
        raise UserError(f"{doing}: {type(e).__name__}: {first_line(e)}") from e


def did_you_mean(found: str, known: Collection[str]) -> str:
    """Suggest the closest name of `known`, or list them all."""
    close = get_close_matches(found, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known: {first_of(sorted(known))}"


def first_of(names: Sequence[str], most: int = 20) -> str:
    """Join names; of many, the first and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "none") + more


def key_from(argv: Sequence[str], stage: str, known: Collection[str]) -> str:
    """Return a stage's one argument, checked against the keys that params.yaml has for the stage.

    Raises:
        SystemExit: with status 2 for a wrong number of arguments.
        UserError: the key is not in params.yaml.
    """
    if len(argv) != 1:
        print(f"usage: python -m stages.{stage} KEY   (one of: {', '.join(known)})", file=sys.stderr)
        raise SystemExit(2)
    if argv[0] not in known:
        raise UserError(f"{stage}: params.yaml has no {argv[0]!r}; {did_you_mean(argv[0], known)}")
    return argv[0]


def refuse_arguments(argv: Sequence[str], stage: str) -> None:
    """Check that a stage that takes no arguments got none.

    Raises:
        SystemExit: with status 2 for any.
    """
    if argv:
        print(f"usage: python -m stages.{stage}", file=sys.stderr)
        raise SystemExit(2)


def entrypoint(main: Callable[[Sequence[str]], None]) -> NoReturn:
    """Run `main` on the command line's arguments and turn how it ends into an exit status.

    0 success, 1 a user's mistake or a failed gate, 2 usage, 130 interrupted; a bug keeps its traceback.
    """
    lifetime.end_with_dvc()
    sys.excepthook = _print_traceback
    gc.set_threshold(100_000)  # at the default, searching the many live objects of torch for garbage took a tenth
    try:
        with _recording_failure():
            main(sys.argv[1:])
    except UserError as e:
        sys.exit(f"error: {e}")
    except OSError as e:
        if e.errno not in FULL:
            raise
        sys.exit(f"error: no space left on the disk while writing {e.filename or 'an output'}; free some and run again")
    except KeyboardInterrupt:
        print("interrupted; `dvc repro` goes on from the last finished stage", file=sys.stderr)
        sys.exit(130)
    sys.exit(0)


def _print_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print a bug's traceback, in which libraries quote addresses, without credentials."""
    print(redacted("".join(traceback.format_exception(kind, error, trace))), end="", file=sys.stderr)


@contextmanager
def _recording_failure() -> Iterator[None]:
    """Record why a stage failed, where the report finds it; remove the record when it succeeds.

    A stage whose settings changed while it ran has failed: DVC would write down the new ones for what it made.
    """
    from stages.core import failures, tracked  # which need UserError

    file, *arguments = sys.argv
    is_stage = Path(file).parent.name == "stages" and Path(file).stem not in {"__main__", "gate"}
    if not is_stage or len(arguments) > 1:  # a command, or a stage's child
        yield
        return
    stage, before = "@".join([Path(file).stem, *arguments]), tracked.text()
    try:
        yield
        tracked.refuse_changed(before, stage)
    except Exception as e:
        with suppress(OSError):  # the disk may be full
            failures.record(stage, str(e) if isinstance(e, UserError) else redacted(f"{type(e).__name__}: {e}"))
        raise
    failures.forget(stage)
