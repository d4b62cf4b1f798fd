"""When tokens are said: FunASR's times of a graph's outputs, and how far an artifact moves them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stages.corpora.manifest import Recording
from stages.models.shared import times
from stages.models.shared.asr import Outcome, measure_with_times


def outputs(peaks: list[int], frames: int) -> dict[str, np.ndarray]:
    """A recording's, whose running sum of weights passes the threshold at those frames."""
    weights = np.zeros((1, frames), np.float32)
    weights[0, peaks] = 1.0
    return dict(zip(times.NAMES, (weights, weights.copy()), strict=True))


def shifts(reference: Outcome, outcome: Outcome) -> tuple[tuple[float, float], ...]:
    line = Recording(folder=Path(), id="one", text="ab")
    [counts] = measure_with_times(Path(), [line], [reference], [outcome])
    return counts["timestamp_shift_mean"], counts["timestamp_shift_max"]


def test_a_token_begins_at_its_peak_and_ends_at_the_next():
    found = times.locate(outputs([10, 15, 22], 24), [7, 8, 2], hidden={0, 1, 2})
    # FunASR moves all by one and a half steps; what follows the last peak is silence, or belongs to the last token.
    assert found == [[170, 270], [270, 480], []]


def test_what_is_given_is_not_changed():
    given = outputs([10, 15], 24)  # a peak too few, so that FunASR scales the weights
    times.locate(given, [7, 8], hidden=set())
    assert given[times.NAMES[0]].sum() == 2


@pytest.mark.parametrize(("tokens", "given"), [([7, 8], {}), ([], outputs([10], 24))], ids=["no-times", "no-tokens"])
def test_there_may_be_no_times(tokens: list[int], given: dict[str, np.ndarray]):
    assert times.locate(given, tokens, hidden=set()) == []


def test_shifts_are_over_the_edges_of_tokens_that_both_have():
    reference = Outcome([7, 8, 9, 2], "", times=[[0, 100], [100, 200], [200, 300], []])
    outcome = Outcome([7, 9, 2], "", times=[[20, 100], [260, 300], []])
    assert shifts(reference, reference) == ((0, 6), (0, 1))
    assert shifts(reference, outcome) == ((80, 4), (60, 1))


def test_without_times_nothing_is_measured():
    plain = Outcome([7, 8], "")
    assert shifts(plain, plain) == ((0, 0), (0, 0))
