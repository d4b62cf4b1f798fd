"""What a recognizer of CTC and a search that chooses its tokens tell each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Search = Callable[[Floats], NDArray[np.int64]]  # of log-probabilities (frames, vocabulary): the token of each frame


@dataclass(frozen=True)
class Vocabulary:
    """What a recognizer's tokens are.

    spellings: the characters of each, of which a space begins a word; none of a token that is no text. blank: the token
    that CTC has between others.
    """

    spellings: Sequence[str]
    blank: int
