"""What is replaced in other libraries for as long as a block lasts, a module for each, with where it was seen and why.

tests/core/test_patches.py and tests/extras/test_cluster.py fail when it is another.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def replace(owner: Any, name: str, new: Any) -> Iterator[None]:
    """Put `new` in the place of what `owner` has by that name, for as long as the block lasts."""
    old = getattr(owner, name)
    setattr(owner, name, new)
    try:
        yield
    finally:
        setattr(owner, name, old)
