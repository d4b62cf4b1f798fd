"""Shares give what one process gives, in order, and a process that dies is not overlooked."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from stages.core.errors import UserError
from stages.core.parallel import _shares, in_shares


@dataclass
class Clip:
    name: str
    seconds: float


CLIPS = [Clip("a", 1), Clip("b", 9), Clip("c", 2), Clip("d", 3), Clip("e", 4)]
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@pytest.mark.parametrize("processes", [1, 2, 3, 9])
def test_results_are_in_the_order_of_the_items(processes: int):
    assert in_shares(lambda clips: [clip.name * 2 for clip in clips], CLIPS, processes) == [
        "aa",
        "bb",
        "cc",
        "dd",
        "ee",
    ]


def test_shares_are_about_as_long():
    assert [sum(CLIPS[i].seconds for i in share) for share in _shares(CLIPS, 2)] == [10, 9]


def test_texts_are_shared_out_by_their_number():
    assert sorted(map(len, _shares([Clip("text", 0)] * 5, 2))) == [2, 3]


def test_other_processes_do_their_share():
    assert len(set(in_shares(lambda clips: [os.getpid() for _ in clips], CLIPS, 2))) == 2


def test_a_mistake_of_the_user_s_is_one_in_whichever_process_it_is_found():
    here = os.getpid()

    def work(clips: Sequence[Clip]) -> list[int]:
        if os.getpid() != here:
            raise UserError("b.wav: too short")
        return [0 for _ in clips]

    with pytest.raises(UserError, match=r"^b\.wav: too short$"):
        in_shares(work, CLIPS, 2)


def test_a_process_that_dies_is_an_error():
    here = os.getpid()

    def work(clips: Sequence[Clip]) -> list[int]:
        if os.getpid() != here:
            os._exit(3)
        return [0 for _ in clips]

    with pytest.raises(RuntimeError, match="ended with status 3"):
        in_shares(work, CLIPS, 2)
