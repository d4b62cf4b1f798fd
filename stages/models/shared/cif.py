"""Continuous integrate-and-fire as one matmul: how Paraformer cuts frames into tokens.

Dong & Xu, "CIF: Continuous Integrate-and-Fire for End-to-End Speech Recognition", 2020: each frame has a weight, and
their running sum has a token whenever it passes a whole number. FunASR loops over frames, or selects by index in
the data, which the exporter refuses.
"""

from __future__ import annotations

from typing import Any

import torch

GRID = 4096  # a sum of multiples of 1 / GRID is exact in fp32 up to that many tokens


def frame_weights(predictor: Any, encoded: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Compute how much of a token each frame is (batch, frames + 1), the last being FunASR's tail threshold.

    encoded: (batch, frames, size). lengths: (batch,).
    """
    context = torch.relu(predictor.cif_conv1d(predictor.pad(encoded.transpose(1, 2)))).transpose(1, 2)
    weights = torch.sigmoid(predictor.cif_output(context))[:, :, 0]
    weights = torch.relu(weights * predictor.smooth_factor - predictor.noise_threshold)
    frames, ends = torch.arange(encoded.shape[1] + 1), lengths[:, None]
    tail: torch.Tensor = predictor.tail_threshold * (frames == ends)
    return torch.nn.functional.pad(weights, (0, 1)) * (frames < ends) + tail


def integrate(weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Integrate weights: each frame's share in each token (batch, tokens, frames), and token counts, int32 (batch,).

    Token k is what the running sum of the weights covers between k and k + 1; a frame's share in it is the overlap,
    so that embeddings are one matmul.

    weights: (batch, frames + 1) as `frame_weights` gives them. There is at least one token position.
    """
    frames = weights.shape[1] - 1
    token_num = weights.sum(dim=-1).floor().to(torch.int32)
    tokens = torch.arange(_positions(token_num, frames))[:, None]
    exact, rest = (torch.nn.functional.pad(part, (1, 0))[:, None] for part in running_sum(weights))
    filled = (exact - tokens + rest).clamp(0, 1)
    return filled[:, :, 1 : frames + 1] - filled[:, :, :frames], token_num


def _positions(token_num: torch.Tensor, frames: int) -> Any:
    """Return for how many tokens a batch has room: at least one."""
    most = token_num.max().clamp(min=1)
    if torch.jit.is_tracing():  # type: ignore[attr-defined,no-untyped-call]  # a number would stay that of the example
        return most
    count = most.item()
    torch._check(count >= 1)  # noqa: SLF001  the exporter's documented way to learn a bound
    torch._check(count <= frames + 1)  # noqa: SLF001
    return count


def running_sum(weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum weights (batch, time) over time, as two parts, an exact and a small one.

    The error of an fp32 sum grows with the recording, and FunASR sums in fp64, which TensorRT does not have. Here a
    part of each weight is a multiple of 1 / GRID, whose sum is exact, and the rest is below that.
    """
    coarse = torch.floor(weights * GRID) / GRID
    return coarse.cumsum(dim=1), (weights - coarse).cumsum(dim=1)
