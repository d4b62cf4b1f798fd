"""What every download keeps to: a time limit, a cache of plain files, one line for whatever goes wrong."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import TypeVar

import truststore

from stages.core.errors import FULL, UserError, first_line

LIMIT_SECONDS = 120.0  # for one answer, with every try again and every wait that the other side asks for
SLOWEST = 2**16  # bytes a second; a file may take the time that it needs at this rate on top
LISTING = 5  # limits for all pages of a large listing

Result = TypeVar("Result")


def seconds(size: int) -> float:
    """Return how long a file of `size` bytes may take."""
    return LIMIT_SECONDS + size / SLOWEST


def trust_system() -> None:
    """Verify servers by the system's certificates, as pip does: a company's proxy has its own."""
    truststore.inject_into_ssl()


def within(limit: Callable[[], float], who: str, work: Callable[[], Result]) -> Result:
    """Run `work` in a thread and return its result, or abandon it when its time is over.

    Nothing else ends every wait: the read timeout of a socket begins again with each byte, and the look-up of a name
    has none. `limit` gives seconds from the start and is asked again, since it may grow with the bytes that came; `who`
    answers, for the message.

    Raises:
        UserError: the time is over; and whatever `work` raises.
    """
    done: Future[Result] = Future()
    started = time.monotonic()
    Thread(target=_settle, args=(done, work), daemon=True, name="transfer").start()
    while not done.done():
        left = started + limit() - time.monotonic()
        if left <= 0:
            raise UserError(f"{who} gave no whole answer in {limit():.0f} s")
        wait([done], timeout=min(left, 1))
    return done.result()


def _settle(done: Future[Result], work: Callable[[], Result]) -> None:
    try:
        done.set_result(work())
    except BaseException as e:  # noqa: BLE001  whoever waits gets it
        done.set_exception(e)


@contextmanager
def shorten_errors(who: str) -> Iterator[None]:
    """Turn whatever a library raises into one line; a full disk and a UserError stay as they are."""
    try:
        yield
    except UserError:
        raise
    except Exception as e:
        cause = root(e)
        if isinstance(cause, OSError) and cause.errno in FULL:
            raise cause from e
        if isinstance(cause, OSError) and cause.filename is not None:  # of this machine, not of the network
            raise UserError(f"{cause.filename}: {cause.strerror}") from e
        raise UserError(f"{who} failed ({type(e).__name__}: {first_line(e)})") from e


def root(error: BaseException) -> BaseException:
    """Return the first cause: the operating system's message is clearer than three libraries' quotes of it."""
    while cause := error.__cause__ or error.__context__:
        error = cause
    return error


def check_cached(*places: Path) -> None:
    """Refuse a folder, a link or a pipe where a download should be a file: it would follow it, wait or fail.

    Raises:
        UserError: one of the places has something that is not a plain file.
    """
    for place in places:
        if place.is_symlink() or (place.exists() and not place.is_file()):
            raise UserError(f"{place}: found something that is not a plain file; remove it and run again")
