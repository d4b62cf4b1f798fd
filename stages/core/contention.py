"""How much the machine has to do beside what is timed, which makes times doubtful."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

PRESSURE = Path("/proc/pressure/cpu")
QUEUE = Path("/proc/thread-self/schedstat")  # nanoseconds on a core, nanoseconds waiting for one, turns


class Watch:
    """A stopwatch that tells for how much of the time something waited for a core."""

    def __init__(self) -> None:
        """Begin now."""
        self._began, self._waited = time.perf_counter(), _waited()

    def share(self) -> float:
        """Return the share of the time since the beginning in which something waited for a core.

        By Linux's pressure stall information. A kernel that has none gives the load average instead: 0 while it is
        within the number of cores, 1 where it is twice as high and more.
        """
        waited, seconds = _waited(), time.perf_counter() - self._began
        if self._waited is None or waited is None:
            share = psutil.getloadavg()[0] / (psutil.cpu_count() or 1) - 1
        else:
            share = (waited - self._waited) / seconds
        return min(1.0, max(0.0, share))


def _waited() -> float | None:
    """Return the seconds since boot in which at least one task waited for a core, None without such a count."""
    try:
        some = PRESSURE.read_text(encoding="utf-8").splitlines()[0]
    except OSError:  # not Linux, or a kernel built or booted without it
        return None
    return int(some.rpartition("total=")[2]) / 1e6


@contextmanager
def own_wait() -> Iterator[Callable[[], int]]:
    """Yield a function that returns the nanoseconds for which the calling thread has waited for a core in its life.

    It always returns 0 where the kernel does not count them.
    """
    try:
        queue = os.open(QUEUE, os.O_RDONLY)  # kept open: a look takes a microsecond, less than any network
    except OSError:
        yield lambda: 0
        return
    try:
        yield lambda: int(os.pread(queue, 100, 0).split()[1])
    finally:
        os.close(queue)
