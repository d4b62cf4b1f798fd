"""Compute once what is the same in several modes, which go over the same recordings: features of audio, and more.

It imports no torch, as what begins to evaluate does not: for a build that cannot run here none is needed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

Tensors = tuple["torch.Tensor", ...]
KEPT_BYTES = 2**28  # in each process: the features of 3,000 short recordings


class _Kept:
    """Tensors by what they are of, as many as KEPT_BYTES hold."""

    def __init__(self) -> None:
        self.tensors: dict[bytes, Tensors] = {}
        self.room = KEPT_BYTES

    def add(self, key: bytes, tensors: Tensors) -> None:
        self.room -= sum(tensor.nbytes for tensor in tensors)
        if self.room >= 0:
            self.tensors[key] = tensors


_kept: ContextVar[_Kept | None] = ContextVar("tensors that are kept", default=None)


@contextmanager
def keeping_features() -> Iterator[None]:
    """Keep what `keep` computes within this block, for modes that go over the same recordings."""
    token = _kept.set(_Kept())
    try:
        yield
    finally:
        _kept.reset(token)


def keep(compute: Callable[..., Tensors], of: object, *inputs: torch.Tensor) -> Tensors:
    """Compute tensors of inputs, and within `keeping_features` nothing twice; who changes them in place copies them.

    of: all that they depend on besides the inputs.
    """
    kept = _kept.get()
    if kept is None:
        return compute(*inputs)
    digest = hashlib.blake2b(repr(of).encode())
    for tensor in inputs:
        digest.update(tensor.numpy().tobytes())
    if (found := kept.tensors.get(digest.digest())) is None:
        found = compute(*inputs)
        kept.add(digest.digest(), found)
    return found


def keep_features(frontend: Any, settings: Any) -> Any:
    """Return a front end without a state, FunASR's, that computes nothing twice within `keeping_features`.

    settings: all that its features depend on besides audio.
    """
    compute = frontend.forward

    def forward(audio: torch.Tensor, lengths: torch.Tensor, **options: Any) -> Tensors:
        features, frames = keep(lambda _: compute(audio, lengths, **options), (settings, lengths, options), audio)
        return features.clone(), frames  # FunASR's encoders scale features in place

    frontend.forward = forward
    return frontend
