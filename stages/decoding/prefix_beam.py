"""CTC prefix beam search, in fast-ctc-decode.

Graves et al., "Towards end-to-end speech recognition with recurrent neural networks", 2014: a text's probability is
that of all its alignments, where greedy decoding takes the one best alignment.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stages.core.errors import UserError
from stages.core.params.decoders import PrefixBeamDecoder
from stages.decoding import LEAST, choose_likely
from stages.models.shared.search import Floats, Search, Vocabulary


def load(decoder: PrefixBeamDecoder, vocabulary: Vocabulary, key: str) -> Search:
    """Load the search as a function of log-probabilities (frames, vocabulary): the token of each frame.

    Raises:
        UserError: the recognizer has no blank, and so no CTC.
    """
    from fast_ctc_decode import beam_search

    if decoder.beam == 1:  # of which the library still adds up alignments that greedy decoding does not
        return lambda log_probabilities: log_probabilities.argmax(axis=1)

    blank = vocabulary.blank
    if blank is None:
        raise UserError(f"{key}.kind: found prefix_beam, wanted another decoder for a recognizer without CTC")

    def search(log_probabilities: Floats) -> NDArray[np.int64]:
        chosen = np.full(len(log_probabilities), blank)
        tokens = np.array([blank, *choose_likely(log_probabilities, blank)])  # it wants the blank first
        if len(tokens) == 1:
            return chosen
        least = min(LEAST, 0.5 / len(tokens))  # it refuses to leave out what chance would give
        text, frames = beam_search(
            np.exp(log_probabilities[:, tokens]), [f"{token} " for token in tokens], decoder.beam, least
        )
        chosen[frames] = [int(token) for token in text.split()]
        return chosen

    return search
