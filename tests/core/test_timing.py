"""Blocks hold pairs that ran in turn, for as long as they may; quiet ones are told apart. No time is asserted."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from stages.core import timing
from stages.core.timing import Block, quiet, time_block


@pytest.mark.parametrize(("number", "order"), [(0, "bccbbccb"), (1, "cbbccbbc")], ids=["even", "odd"])
def test_pairs_run_in_turn_and_alternate_who_is_first(number: int, order: str):
    ran: list[str] = []
    time_block(lambda: ran.append("b"), lambda: ran.append("c"), pairs=4, warmup=1, number=number)
    assert "".join(ran) == "bc" + order


def test_times_are_those_of_each_without_the_wait_for_a_core(monkeypatch: pytest.MonkeyPatch):
    now, waited = [0.0], [0]

    @contextmanager
    def own_wait() -> Iterator[Callable[[], int]]:
        yield lambda: waited[0]

    def work(seconds: float, wait: float) -> None:
        now[0] += seconds + wait
        waited[0] += round(1e9 * wait)

    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(timing, "own_wait", own_wait)
    block = time_block(lambda: work(0.004, 0.02), lambda: work(0.001, 0), pairs=3, warmup=1)
    assert block.baseline.tolist() == pytest.approx([4, 4, 4])
    assert block.candidate.tolist() == pytest.approx([1, 1, 1])


@pytest.mark.parametrize(("seconds", "pairs"), [(10, 5), (0, 1)], ids=["some", "always one"])
def test_pairs_end_when_the_seconds_are_used_up(monkeypatch: pytest.MonkeyPatch, seconds: float, pairs: int):
    ticks = itertools.count()
    monkeypatch.setattr(timing, "Watch", type("Still", (), {"share": lambda _: 0.0}))
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(ticks)) / 2.5)
    assert len(time_block(lambda: None, lambda: None, pairs=100, warmup=1, seconds=seconds).baseline) == pairs


def test_quiet_blocks_keep_their_order():
    busy = [0.9, 0.0, 0.3, 0.1, 0.0]
    blocks = [Block(np.array([float(i)]), np.array([1.0]), share) for i, share in enumerate(busy)]
    assert [block.baseline[0] for block in quiet(blocks, 0.1)] == [1, 3, 4]
