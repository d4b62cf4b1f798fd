"""What a recognizer and a search that chooses its tokens tell each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

Floats = NDArray[np.float32]
Search = Callable[[Floats], NDArray[np.int64]]  # of log-probabilities (frames, vocabulary): the token of each frame


@dataclass(frozen=True)
class Vocabulary:
    """What a recognizer's tokens are.

    spellings: the characters of each, of which a space begins a word; none of a token that is no text. blank: the token
    that CTC has between others; None of a recognizer each of whose frames is a token.
    """

    spellings: Sequence[str]
    blank: int | None


def choose(search: Search, logits: torch.Tensor) -> torch.Tensor:
    """Return logits (frames, vocabulary) of which the best are the tokens that a search chooses of these."""
    import torch  # `kiln doctor` asks what a search needs, and may be told that torch does not start

    chosen = torch.from_numpy(search(torch.log_softmax(logits, dim=-1).numpy()))
    return torch.nn.functional.one_hot(chosen, logits.shape[-1]).to(logits.dtype)
