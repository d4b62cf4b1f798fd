"""When tokens are said: what FunASR computes times from, which a predictor gives on finer frames than the encoder's.

Shi et al., "Achieving Timestamp Prediction While Recognizing with Non-Autoregressive End-to-End ASR Model", 2023.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch

from stages.core.graphs import Feeds, Tensor
from stages.models.shared import checkpoint, cif, sanm
from stages.models.shared.recurrent import Recurrent

NAMES = ("us_alphas", "us_cif_peak")  # FunASR's, of what `times` gives


def locate(outputs: Feeds, tokens: Sequence[int], hidden: Collection[int]) -> list[list[int]]:
    """Compute when each token of one recording begins and ends, in ms, as FunASR does; nothing of the `hidden` ones.

    outputs: of a graph; where it gives no times, the result is empty.
    """
    if NAMES[0] not in outputs:
        return []
    with checkpoint.importing_funasr():
        from funasr.utils.timestamp_tools import ts_prediction_lfr6_standard

    weights, peaks = (torch.tensor(outputs[name][0]) for name in NAMES)  # copies: FunASR scales the weights in place
    shown = [str(token) for token in tokens if token not in hidden]
    found = iter(ts_prediction_lfr6_standard(weights, peaks, shown)[1])
    return [[] if token in hidden else next(found, []) for token in tokens]


def has_times(model: Any) -> bool:
    """Tell whether a Paraformer's predictor is FunASR's CifPredictorV3, which gives times."""
    return hasattr(model.predictor, "upsample_times")


def outputs() -> dict[str, Tensor]:
    """Describe a graph's outputs for times."""
    return {name: Tensor(dtype="float32", shape=["batch", "upsampled_length"]) for name in NAMES}


def times(
    predictor: Any, recurrent: Recurrent, encoded: torch.Tensor, lengths: torch.Tensor, token_num: torch.Tensor
) -> list[torch.Tensor]:
    """Compute FunASR's weights for times on a finer grid, (batch, frames * upsample_times), and their running sum.

    The sum starts again by the threshold when it has passed it, so that a token is where it is largest.
    """
    source = encoded.transpose(1, 2)
    if predictor.use_cif1_cnn:
        source = torch.relu(predictor.cif_conv1d(predictor.pad(source)))
    upsampled = predictor.upsample_cnn(source).transpose(1, 2)
    weights = torch.sigmoid(predictor.cif_output2(recurrent(upsampled, lengths * predictor.upsample_times)))
    weights = torch.relu(weights * predictor.smooth_factor2 - predictor.noise_threshold2)
    weights = weights.reshape(weights.shape[0], -1, predictor.upsample_times)
    weights = weights * sanm.mask(lengths, torch.arange(encoded.shape[1])).rows
    weights = weights * (token_num / weights.sum(dim=(1, 2)).clamp(min=1e-9))[:, None, None]
    weights = weights.flatten(1)
    threshold = predictor.threshold - 1e-4
    exact, rest = cif.running_sum(weights)
    passed = torch.floor((exact + rest - weights) / threshold)
    return [weights, exact - threshold * passed + rest]
