"""A function of audio, over recordings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from stages.core.errors import UserError
from stages.corpora.manifest import Recording

T = TypeVar("T")


def score_each(run: Callable[[NDArray[np.float32]], T], recordings: Iterable[Recording]) -> list[T]:
    """Run a function of audio float32 (samples,) over recordings.

    Raises:
        UserError: the function raised one; it names the recording.
    """
    outcomes = []
    for recording in recordings:
        try:
            outcomes.append(run(recording.samples()))
        except UserError as e:
            raise UserError(f"{recording.path}: {e}") from e
    return outcomes
