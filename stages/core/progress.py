"""What a stage is doing, in one line on a terminal. Where standard error is a file or a pipe, nothing is written.

Below `dvc repro` a stage's standard error is the terminal's.
"""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar, overload

from tqdm import tqdm

tqdm.monitor_interval = 0  # no thread of its own: scoring forks
COUNTS = "{desc}: {n_fmt} of {total_fmt}, {elapsed} [{remaining} left]"
SECONDS = 1.0  # between two looks at a step that cannot be counted
T = TypeVar("T")


def each(items: Sequence[T], what: str) -> Sequence[T]:
    """Return `items` so that a loop over them shows how many are done and the time left.

    what: what they are, such as `recordings`.
    """
    return _Shown(items, what)


class _Shown(Sequence[T]):
    def __init__(self, items: Sequence[T], what: str) -> None:
        self.items, self.what = items, what

    def __iter__(self) -> Iterator[T]:
        yield from _line(self.items, desc=self.what, bar_format=COUNTS)

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...

    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        return self.items[index]


@contextmanager
def counted(total: int, what: str) -> Iterator[Any]:
    """Yield a function that counts one more of `total` as done, for loops that run inside another function."""
    with _line(total=total, desc=what, bar_format=COUNTS) as line:
        yield line.update


@contextmanager
def phase(what: str) -> Iterator[None]:
    """Show a step that cannot be counted, such as one call of a library, and the seconds that it has taken.

    The seconds go on in a thread, so no process may be forked within that goes on in Python.
    """
    if not sys.stderr.isatty():
        yield
        return
    done = threading.Event()
    with _line(desc=what, bar_format="{desc}: {elapsed}") as line:

        def tick() -> None:
            while not done.wait(SECONDS):
                line.refresh()

        thread = threading.Thread(target=tick, daemon=True, name="progress")
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def _line(items: Sequence[T] | None = None, **settings: Any) -> Any:
    """Return a line of tqdm that goes away when done; `disable=None` hides it where there is no terminal."""
    size = shutil.get_terminal_size()  # tqdm shows nothing on a terminal that does not say its size
    return tqdm(items, leave=False, disable=None, ncols=size.columns - 1, nrows=size.lines, **settings)
