"""Widths are cut where it costs least, and the total is what was asked for."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from stages.core.errors import UserError
from stages.pruning import allocation

DENSE = {"encoder": 64, "decoder": 64}
CHEAP, DEAR = {16: 0.9, 32: 0.4, 48: 0.1}, {16: 90.0, 32: 40.0, 48: 10.0}


def count(widths: Mapping[str, int]) -> int:
    """Ten parameters a channel, and as many again outside."""
    return 1280 + sum(10 * width for width in widths.values())


def cheapest(ratio: float, round_to: int = 8, **curves: Mapping[int, float]) -> dict[str, int]:
    return allocation.cheapest(DENSE, curves, count, ratio, tolerance=0.01, steps=dict.fromkeys(DENSE, round_to))


@pytest.mark.parametrize(
    ("width", "round_to", "wanted"),
    [
        pytest.param(64, 8, [8, 24, 40, 48], id="multiples"),
        pytest.param(250, 16, [32, 80, 144, 192], id="a width that is none"),
        pytest.param(16, 16, [], id="nothing narrower"),
        pytest.param(3, 1, [1, 2], id="few channels"),
    ],
)
def test_probes_are_narrower_multiples(width: int, round_to: int, wanted: list[int]):
    assert allocation.probes(width, round_to) == wanted


def test_the_group_that_costs_less_gives_more():
    assert cheapest(0.125, encoder=CHEAP, decoder=DEAR) == {"encoder": 32, "decoder": 64}
    assert cheapest(0.125, encoder=DEAR, decoder=CHEAP) == {"encoder": 64, "decoder": 32}


def test_costs_that_rise_are_shared():
    rising = {16: 9.0, 32: 4.0, 48: 1.0}
    assert cheapest(0.125, encoder=rising, decoder=rising) == {"encoder": 48, "decoder": 48}


@pytest.mark.parametrize("round_to", [1, 4, 8])
@pytest.mark.parametrize("ratio", [0.125, 0.25, 0.3125])
def test_no_less_is_removed_than_was_asked_for(round_to: int, ratio: float):
    widths = cheapest(ratio, round_to, encoder=CHEAP, decoder=DEAR)
    assert ratio <= 1 - count(widths) / count(DENSE) <= ratio + 0.01
    assert all(width % round_to == 0 for width in widths.values())


def test_many_combinations_are_looked_at_more_coarsely():
    dense = dict.fromkeys("abcd", 256)
    curves = {key: {128: cost} for key, cost in zip(dense, (1.0, 2.0, 3.0, 4.0), strict=True)}
    widths = allocation.cheapest(dense, curves, lambda new: sum(new.values()), 0.125, 0.01, dict.fromkeys(dense, 1))
    assert 0.125 <= 1 - sum(widths.values()) / 1024 <= 0.135
    assert widths["a"] < widths["b"] < widths["c"] <= widths["d"] < 256


def test_more_than_was_measured_is_refused():
    with pytest.raises(UserError, match=r"remove up to 37\.5% of the parameters, none 50\.0% to 51\.0%.*round_to"):
        cheapest(0.5, encoder=CHEAP, decoder=DEAR)
