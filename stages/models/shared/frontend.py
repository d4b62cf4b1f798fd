"""FunASR's front ends: what they need of audio, and features that are computed once for several modes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stages.core.errors import UserError

Floats = NDArray[np.float32]
Features = tuple[torch.Tensor, torch.Tensor]
KEPT_BYTES = 2**28  # of features, in each process: those of 3,000 short recordings


class _Kept:
    """Features by what they are of, as many as KEPT_BYTES hold."""

    def __init__(self) -> None:
        self.features: dict[bytes, Features] = {}
        self.room = KEPT_BYTES

    def add(self, key: bytes, features: Features) -> None:
        self.room -= features[0].nbytes
        if self.room >= 0:
            self.features[key] = features


_kept: ContextVar[_Kept | None] = ContextVar("features that are kept", default=None)


@contextmanager
def keeping_features() -> Iterator[None]:
    """Keep what front ends make of audio within this block, for modes that go over the same recordings."""
    token = _kept.set(_Kept())
    try:
        yield
    finally:
        _kept.reset(token)


def keep_features(frontend: Any, settings: Any) -> Any:
    """Return a front end without a state, FunASR's, that computes nothing twice within `keeping_features`.

    settings: all that its features depend on besides audio.
    """
    compute = frontend.forward

    def forward(audio: torch.Tensor, lengths: torch.Tensor, **options: Any) -> Features:
        kept = _kept.get()
        if kept is None:
            return compute(audio, lengths, **options)  # type: ignore[no-any-return]  # FunASR's types say nothing
        of = hashlib.blake2b(repr((settings, lengths, options)).encode())
        of.update(audio.numpy().tobytes())
        if (found := kept.features.get(of.digest())) is None:
            found = compute(audio, lengths, **options)
            kept.add(of.digest(), found)
        return found[0].clone(), found[1]  # its encoders scale features in place

    frontend.forward = forward
    return frontend


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
