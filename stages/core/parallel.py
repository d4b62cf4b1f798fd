"""Work on recordings shared between forked processes: FunASR's are Python loops that keep one core busy."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, Protocol, TypeVar

import psutil

from stages.core import lifetime, progress
from stages.core.errors import UserError


class Timed(Protocol):
    """Something that takes work in proportion to its length."""

    @property
    def seconds(self) -> float:
        """Return its length in seconds."""


T = TypeVar("T", bound=Timed)
R = TypeVar("R")


def cores() -> int:
    """Count the cores that this process may use."""
    process = psutil.Process()
    return len(process.cpu_affinity() or ()) if hasattr(process, "cpu_affinity") else psutil.cpu_count() or 1


def in_shares(work: Callable[[Sequence[T]], list[R]], items: Sequence[T], processes: int | None = None) -> list[R]:
    """Run `work` on shares of about equal length, one in each process; results are in the order of `items`.

    `work` may hold what cannot be pickled, such as a live session: a forked process inherits it. So
    nothing may have started threads that it needs, nor a CUDA context; off Linux all is done here.

    Raises:
        UserError: `work` did, here or in another process.
        RuntimeError: a process failed or was killed; its own traceback is on standard error.
    """
    shares = _shares(items, processes or (cores() if sys.platform == "linux" else 1))
    context = get_context("fork")
    children = []
    for share in shares[1:]:
        receiver, sender = context.Pipe(duplex=False)
        child = context.Process(target=_send, args=(os.getpid(), sender, work, [items[i] for i in share]), daemon=True)
        child.start()
        sender.close()
        children.append((child, receiver))
    own = progress.each([items[i] for i in shares[0]], "recordings")  # the other shares are as long
    results = dict(zip(shares[0], work(own), strict=True))
    for share, (child, receiver) in zip(shares[1:], children, strict=True):
        try:
            found = receiver.recv()
        except EOFError as e:
            child.join()
            raise RuntimeError(f"a process that worked on {len(share)} items ended with status {child.exitcode}") from e
        child.join()
        if isinstance(found, UserError):
            raise found
        results |= zip(share, found, strict=True)
    return [results[i] for i in range(len(items))]


def _shares(items: Sequence[Timed], processes: int) -> list[list[int]]:
    """Share out the items' indices: the longest item first, each to the share that has least."""
    shares: list[list[int]] = [[] for _ in range(min(processes, len(items)) or 1)]
    loads = [0.0] * len(shares)
    for index in sorted(range(len(items)), key=lambda i: -items[i].seconds):
        lightest = loads.index(min(loads))
        shares[lightest].append(index)
        loads[lightest] += items[index].seconds or 1  # of texts, which have none, as many each
    return shares


def _send(
    parent: int, sender: Connection[Any, Any], work: Callable[[Sequence[T]], list[R]], items: Sequence[T]
) -> None:
    lifetime.end_with_parent(parent)
    try:
        sender.send(work(items))
    except UserError as e:
        sender.send(e)
    sender.close()
