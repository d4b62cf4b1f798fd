"""What Ray prints. Seen in 2.60."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from stages.core.patches import replace

PRINT = "print_to_stdstream"  # of its worker


@contextmanager
def ray_prints() -> Iterator[None]:
    """Keep Ray from printing the state of a machine that was lost: we say so in one line."""
    from ray._private import worker

    with replace(worker, PRINT, lambda *_, **__: None):
        yield
