"""Check that audio fills an analysis window, without which FunASR's front ends fail, and compute its features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stages.core.errors import UserError

Floats = NDArray[np.float32]


def fills_window(samples: Floats, frontend: Any) -> bool:
    """Tell whether audio (samples,) is as long as an analysis window of the front end: there is nothing in less."""
    return bool(len(samples) * 1000 >= frontend.frame_length * frontend.fs)


def extractor(frontend: Any) -> Callable[[Floats], Floats]:
    """Return a front end as a function of audio (samples,): features float32 (frames, input_size).

    It raises a UserError for audio that is shorter than a window.
    """

    def extract(samples: Floats) -> Floats:
        if not fills_window(samples, frontend):
            raise UserError(f"found {len(samples)} samples of audio, wanted {frontend.frame_length} ms at least")
        features, _ = frontend(torch.from_numpy(samples)[None], torch.tensor([len(samples)]))
        return np.asarray(features[0])

    return extract


def long_enough(audio: Sequence[Floats], frontend: Any) -> list[Floats]:
    """Return the recordings that fill a window.

    Raises:
        UserError: there is none.
    """
    found = [samples for samples in audio if fills_window(samples, frontend)]
    if not found:
        raise UserError(f"found {len(audio)} recordings, all under {frontend.frame_length} ms, wanted one with speech")
    return found
