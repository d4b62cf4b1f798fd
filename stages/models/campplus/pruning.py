"""Fewer hidden channels in CAM++: inside the residual blocks in front, and inside each layer of its dense blocks.

What a block or a layer gives to the next keeps its width, so nothing outside changes. A layer's context has half as
many channels as the layer, as FunASR builds it, and is narrowed with it.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from stages.core.errors import UserError
from stages.core.params.prune import PruneParams
from stages.corpora.manifest import Recording
from stages.models.campplus.network import BLOCKS, FRAMES_PER_SECOND, build, residual_blocks
from stages.models.campplus.schema import FEATURES
from stages.models.campplus.scoring import LEAST_SAMPLES, features
from stages.models.shared import checkpoint
from stages.pruning import augmentation, convolutions, recovery
from stages.pruning.convolutions import Layer

if TYPE_CHECKING:
    from funasr.models.campplus.model import CAMPPlus

HEAD = "head"
CROP, HOP = 2 * FRAMES_PER_SECOND, FRAMES_PER_SECOND  # frames: of one length, so that many run together
REFIT_CROPS = 96
BATCH = 16  # crops in a step of distillation
CASE_FRAMES = 10 * FRAMES_PER_SECOND
NEAR = 0.002  # of all parameters: of choices that remove so nearly the same, the most even is taken


def calibration(folder: Path, recordings: Sequence[Recording], settings: PruneParams) -> torch.Tensor:
    """Cut the features of the recordings and of variations of them into crops of 2 s, (crops, frames, 80).

    Raises:
        UserError: there are too few recordings of 2 s or more.
    """
    del folder
    audio = [r.samples() for r in recordings]
    varied = [*audio, *augmentation.vary(audio, settings.variations, settings.seed)]
    whole = [features(torch.from_numpy(samples))[0] for samples in varied if len(samples) >= LEAST_SAMPLES]
    crops = [found.unfold(0, CROP, HOP).transpose(1, 2) for found in whole if len(found) >= CROP]
    if sum(map(len, crops)) < BATCH:
        raise UserError(f"prune: found {sum(map(len, crops))} crops of 2 s to calibrate on, wanted at least {BATCH}")
    stacked = torch.cat(crops)
    return stacked - stacked.mean(dim=1, keepdim=True)


def _layers(model: CAMPPlus) -> dict[str, list[Layer]]:
    """Return the layers of each width, in the order of the network."""
    front = [
        Layer(f"{name}.conv1", f"{name}.bn1", (f"{name}.conv2",), after=f"{name}.bn2")
        for name in residual_blocks(model)
    ]
    return {HEAD: front, **{key: list(_dense_layers(model, key)) for key in BLOCKS}}


def _dense_layers(model: CAMPPlus, key: str) -> Iterator[Layer]:
    """Give the layers of a dense block, and the context of each right after it."""
    for place in dict(getattr(model.xvector, key).named_children()):
        layer, cam = f"xvector.{key}.{place}", f"xvector.{key}.{place}.cam_layer"
        norm = f"{layer}.nonlinear2.batchnorm"
        yield Layer(f"{layer}.linear1", norm, (f"{cam}.linear_local", f"{cam}.linear1"))
        yield Layer(f"{cam}.linear1", None, (f"{cam}.linear2",))


def widths(model: CAMPPlus) -> dict[str, int]:
    """Return the layer widths that pruning changes."""
    return {key: model.get_submodule(of_width[0].maker).out_channels for key, of_width in _layers(model).items()}


def with_widths(config: dict[str, Any], new: Mapping[str, int]) -> dict[str, Any]:
    """Return the configuration with some widths, by the keys of `widths`, changed."""
    conf = config.get("model_conf") or {}
    kept = (conf.get("kept_channels") or {}) | dict(new)
    return config | {"model_conf": conf | {"kept_channels": kept}} if new else config


def counter(config: dict[str, Any]) -> Callable[[Mapping[str, int]], int]:
    """Return a function that counts the parameters of the model with other widths, by the keys of `widths`."""
    model = checkpoint.weightless(build, config)
    total, dense = sum(p.numel() for p in model.parameters()), widths(model)
    layers = _layers(model)

    @functools.cache  # `narrowed` asks for every combination of widths
    def size(key: str, width: int) -> int:
        return sum(_size(model, layer, width) for layer in layers[key])

    return lambda new: total - sum(size(key, dense[key]) - size(key, width) for key, width in new.items())


def _size(model: CAMPPlus, layer: Layer, width: int) -> int:
    """Count the parameters that go with a layer's hidden channels where its width is that; of a context, half of it."""
    maker, reader = (model.get_submodule(name).weight for name in (layer.maker, layer.readers[0]))
    is_context = layer.norm is None
    channels, enters = (width // 2, width) if is_context else (width, maker.shape[1])
    of_one = enters * maker[0, 0].numel() + (1 if is_context else 2) + reader[:, 0].numel()
    return channels * int(of_one)


def narrowed(config: dict[str, Any], removed: float, steps: Mapping[str, int]) -> dict[str, Any]:
    """Choose the widths, by the keys of `widths` multiples of `steps`, that remove closest to `removed`.

    Of those that remove about the same, the ones that leave the most even share of each.
    """
    dense, count = widths(checkpoint.weightless(build, config)), counter(config)
    choices = [range(min(step, dense[key]), dense[key] + 1, step) for key, step in steps.items()]
    candidates = [dict(zip(steps, chosen, strict=True)) for chosen in itertools.product(*choices)]
    total = count({})

    def rank(new: Mapping[str, int]) -> tuple[int, float]:
        shares = [width / dense[key] for key, width in new.items()]
        return int(abs(1 - count(new) / total - removed) / NEAR), max(shares) - min(shares)

    best = min(candidates, key=rank)
    return with_widths(config, {key: width for key, width in best.items() if width < dense[key]})


def multiplications(model: CAMPPlus) -> int:
    """Count multiply-accumulates of convolutions for 10 s of audio."""
    total = 0

    def add(conv: Any, _: Any, output: torch.Tensor) -> None:
        nonlocal total
        total += conv.weight.numel() * output[0, 0].numel()

    convolutional = (torch.nn.Conv1d, torch.nn.Conv2d)
    handles = [m.register_forward_hook(add) for m in model.modules() if isinstance(m, convolutional)]
    with torch.inference_mode():
        model(torch.zeros(1, CASE_FRAMES, FEATURES, device=next(model.parameters()).device))
    for handle in handles:
        handle.remove()
    return total


def cut(
    model: CAMPPlus, config: dict[str, Any], calibration: torch.Tensor, criterion: str, damping: float
) -> tuple[CAMPPlus, recovery.Refit]:
    """Copy the model into one with the narrower layers of `config`, and return that and what refits it.

    calibration: features (crops, frames, 80). criterion: one of `stages.pruning.criteria` that needs no posteriors.

    Raises:
        UserError: the criterion is `taylor`.
    """
    if criterion == "taylor":
        raise UserError("prune: found criterion: taylor, which needs posteriors; an embedding has none: wanted another")
    small, layers = checkpoint.weightless(build, config), [layer for of in _layers(model).values() for layer in of]
    return small, convolutions.cut(model, small, layers, calibration[:REFIT_CROPS], criterion, damping)


def distillation(small: CAMPPlus, model: CAMPPlus, calibration: torch.Tensor) -> recovery.Loss:
    """Return the loss of one step: 1 minus the cosine of the two models' embeddings, as trials are scored.

    calibration: features (crops, frames, 80).
    """

    def loss(generator: torch.Generator) -> torch.Tensor:
        inputs = calibration[torch.randint(len(calibration), (BATCH,), generator=generator)]
        with torch.no_grad():
            wanted = model(inputs)
        return 1 - torch.nn.functional.cosine_similarity(small(inputs), wanted).mean()

    return loss
