"""Which group of layers gives how much: the widths that cost least at the same total.

A group is what a FunASR config has one width for. How sensitive each is to losing some of it is measured on its own, as
in Li et al., "Pruning filters for efficient ConvNets", 2017, section 3.2; of all groups together the costs are taken to
add up.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from stages.core.errors import UserError

SHARES = (0.2, 0.4, 0.65, 0.85)  # of a group's width that is removed to see what that costs
COMBINATIONS = 50_000  # of widths that are looked at; with more, the finest is tried at twice the distance

Widths = Mapping[str, int]
Curve = Mapping[int, float]
"""What a group costs, by its width; its own width costs nothing."""
Count = Callable[[Widths], int]
"""Parameters of the model with those widths."""


def probes(width: int, round_to: int) -> list[int]:
    """List widths below `width`, multiples of `round_to`, at which to measure what a group costs, ascending."""
    near = {max(1, round((1 - share) * width / round_to)) * round_to for share in SHARES}
    return sorted(probe for probe in near if probe < width)


def cheapest(
    dense: Widths, curves: Mapping[str, Curve], count: Count, ratio: float, tolerance: float, steps: Mapping[str, int]
) -> dict[str, int]:
    """Find the widths, multiples of `steps`, of least predicted cost that remove `ratio` to `ratio + tolerance`.

    dense: the widths of the model that may change. curves: by group, at the widths of `probes`; between them the root
    of a cost is interpolated, as costs start at zero with no slope, and below them nothing is known and nothing tried.

    Raises:
        UserError: no such widths remove that much.
    """
    finest, options = dict(steps), {key: _options(dense[key], curves[key], steps[key]) for key in dense}
    while math.prod(map(len, options.values())) > COMBINATIONS:
        most_tried = max(options, key=lambda key: len(options[key]))
        finest[most_tried] *= 2
        options[most_tried] = _options(dense[most_tried], curves[most_tried], finest[most_tried])
    total, costs = count(dense), {key: _costs(dense[key], curves[key]) for key in dense}
    best, lowest, most = None, math.inf, 0.0
    for widths in itertools.product(*options.values()):
        combination = dict(zip(dense, widths, strict=True))
        gone = 1 - count(combination) / total
        cost = sum(costs[key](width) for key, width in combination.items())
        most = max(most, gone)
        if ratio <= gone <= ratio + tolerance and cost < lowest:
            best, lowest = combination, cost
    if best is None:
        raise UserError(
            f"prune: the widths that were measured remove up to {most:.1%} of the parameters, "
            f"none {ratio:.1%} to {ratio + tolerance:.1%}; lower prune.MODEL.round_to, change its ratio, or set "
            "allocation: uniform"
        )
    return best


def _options(dense: int, curve: Curve, step: int) -> Sequence[int]:
    lowest = min(curve, default=dense)
    return [*range(math.ceil(lowest / step) * step, dense, step), dense]


def _costs(dense: int, curve: Curve) -> Callable[[int], float]:
    widths = [*sorted(curve), dense]
    roots = [*(math.sqrt(max(0.0, curve[width])) for width in widths[:-1]), 0.0]
    known = {width: float(np.interp(width, widths, roots)) ** 2 for width in range(widths[0], dense + 1)}
    return known.__getitem__
