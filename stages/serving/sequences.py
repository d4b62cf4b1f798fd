"""What a server keeps of sequences between their requests, which Triton sends to the same instance in order."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from stages.core.errors import UserError

IDLE_SECONDS = 60.0  # without a request, after which a sequence is over: also `max_sequence_idle_microseconds`
State = TypeVar("State")


class Sequences(Generic[State]):
    """The state of each live sequence. What was abandoned is forgotten when another request comes."""

    def __init__(self, new: Callable[[], State], clock: Callable[[], float] = time.monotonic) -> None:
        """Take what makes the state of a new sequence."""
        self._new, self._clock = new, clock
        self._states: dict[int | str, tuple[State, float]] = {}

    @contextmanager
    def state(self, sequence: int | str, starts: bool, ends: bool) -> Iterator[State]:  # noqa: FBT001
        """Yield the state of a sequence, to be changed in place; a request that fails ends it.

        Raises:
            UserError: it has not been started, or was idle for too long.
        """
        now = self._clock()
        self._states = {key: kept for key, kept in self._states.items() if now - kept[1] < IDLE_SECONDS}
        found = (self._new(), now) if starts else self._states.pop(sequence, None)
        if found is None:
            raise UserError(f"sequence {sequence}: found no start of it in the last {IDLE_SECONDS:g} s; start it again")
        yield found[0]
        if not ends:
            self._states[sequence] = found[0], self._clock()

    def __len__(self) -> int:
        """Count the live sequences."""
        return len(self._states)
