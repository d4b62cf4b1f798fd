"""How a CTC recognizer's tokens are chosen, other than greedily: searches of libraries that the extra `decoding` has.

A search gives each frame a token, as greedy decoding does, and what follows is the recognizer's own.
"""

from __future__ import annotations

import importlib
import importlib.util

import numpy as np
from numpy.typing import NDArray

from stages.core.params.decoders import Decoder
from stages.models.shared.ctc import Floats, Search, Vocabulary

LIBRARIES = {"greedy": (), "prefix_beam": ("fast_ctc_decode",), "wfst": ("kaldi_decoder", "kaldifst", "kaldilm")}
LEAST = 1e-4  # of a token's probability: one that has less in every frame is left out of a search


def why_unavailable(decoder: Decoder) -> str | None:
    """Explain why this machine cannot run a decoder, or return None."""
    absent = [name for name in LIBRARIES[decoder.kind] if importlib.util.find_spec(name) is None]
    if not absent:
        return None
    return f"the decoder {decoder.kind} needs {', '.join(absent)}; install the extra: `make .venv/extra-decoding`"


def load(decoder: Decoder, vocabulary: Vocabulary, key: str) -> Search:
    """Load the search of a decoder that is not greedy; key: where params.yaml has it, for messages.

    Raises:
        UserError: its language model or a hotword is not what it needs.
    """
    module = importlib.import_module(f"{__name__}.{decoder.kind}")
    search: Search = module.load(decoder, vocabulary, key)

    def search_finite(log_probabilities: Floats) -> NDArray[np.int64]:
        is_finite = np.isfinite(log_probabilities).all()  # else the network is broken, which its pipeline tells
        return search(log_probabilities) if is_finite else log_probabilities.argmax(axis=1)

    return search_finite


def choose_likely(log_probabilities: Floats, blank: int) -> NDArray[np.int64]:
    """Return the blank and each token that is at least as probable as LEAST in some frame, in order."""
    likely = log_probabilities.max(axis=0) >= np.log(LEAST)
    likely[blank] = True
    return np.flatnonzero(likely)
