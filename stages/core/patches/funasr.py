"""Importing FunASR. Seen in 1.4."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

from stages.core.patches import replace

INSPECT = "inspect"  # the library as funasr.register knows it


@contextmanager
def funasr_register() -> Iterator[None]:
    """Have FunASR register classes without the line on which each stands, which is for a list that nobody prints.

    To find it, `inspect` splits all of a module into tokens for each class: two thirds of importing a family's modules.
    """
    from funasr import register

    with replace(register, INSPECT, SimpleNamespace(getfile=inspect.getfile, getsourcelines=lambda _: ([], 0))):
        yield
