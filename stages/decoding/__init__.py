"""How a recognizer's tokens are chosen, other than greedily: searches of libraries that the extra `decoding` has.

A search gives each frame a token, as greedy decoding does, and what follows is the recognizer's own.
"""

from __future__ import annotations

import importlib
import importlib.util

import numpy as np
from numpy.typing import NDArray

from stages.core.params.decoders import Decoder
from stages.models.shared.search import Floats, Search, Vocabulary

LIBRARIES = {"greedy": (), "prefix_beam": ("fast_ctc_decode",), "wfst": ("kaldi_decoder", "kaldifst", "kaldilm")}
LEAST = 1e-4  # of a token's probability: one that has less in every frame, and is the best of none, is left out


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
        if len(log_probabilities) and np.isfinite(log_probabilities).all():
            return search(log_probabilities)
        return np.asarray(log_probabilities.argmax(axis=1))  # of a broken network, which its pipeline tells, or nothing

    return search_finite


def choose_likely(log_probabilities: Floats, blank: int | None) -> NDArray[np.int64]:
    """Return each token but the blank that is the best, or at least as probable as LEAST, in some frame; in order."""
    likely = log_probabilities.max(axis=0) >= np.log(LEAST)
    likely[log_probabilities.argmax(axis=1)] = True
    if blank is not None:
        likely[blank] = False
    return np.flatnonzero(likely)
