"""Two calls timed beside each other, in blocks that lie apart in time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from stages.core.contention import Watch, own_wait
from stages.core.statistics import Floats


@dataclass(frozen=True)
class Block:
    """Milliseconds of baseline and candidate, (pairs,) each, run in turn without a break.

    Those in which the calling thread waited for a core do not count: they are others' work. What threads of its own it
    waits for does. busy: the share of the time in which something waited for a core.
    """

    baseline: Floats
    candidate: Floats
    busy: float


def time_block(
    baseline: Callable[[], object],
    candidate: Callable[[], object],
    pairs: int,
    warmup: int,
    seconds: float = math.inf,
    number: int = 0,
) -> Block:
    """Time pairs of one baseline and one candidate run; which of the two goes first alternates.

    pairs and warmup, which is not timed: how many, or as many as the seconds allow, one at least. number: of the block;
    in odd ones the candidate begins.
    """
    calls, ends = (baseline, candidate), time.perf_counter() + seconds
    for done in range(warmup):
        if not done or time.perf_counter() < ends:
            baseline()
            candidate()
    watch = Watch()
    times: list[list[float]] = []
    with own_wait() as waited:
        while not times or (len(times) < pairs and time.perf_counter() < ends):
            pair = [0.0, 0.0]
            for side in (0, 1) if (number + len(times)) % 2 == 0 else (1, 0):
                pair[side] = _milliseconds(calls[side], waited)
            times.append(pair)
    columns = np.array(times)
    return Block(columns[:, 0], columns[:, 1], watch.share())


def _milliseconds(call: Callable[[], object], waited: Callable[[], int]) -> float:
    """Time one call, less what `waited` says that it waited for a core."""
    before, start = waited(), time.perf_counter()
    call()
    seconds = time.perf_counter() - start
    working = seconds - (waited() - before) / 1e9
    return 1000 * (working if working > 0 else seconds)  # the wait may have been just before or after the call


def quiet(blocks: Sequence[Block], busy: float) -> list[Block]:
    """Return the blocks in which something waited for a core for no larger share of the time than `busy`."""
    return [block for block in blocks if block.busy <= busy]
