"""Narrower hidden channels between convolutions: choose which stay, copy those, refit what reads them.

The counterpart of stages/pruning/narrowing.py, which does the same for dense layers. A convolution is a dense layer of
patches: of what its taps see at a position, in one dimension or two. Nothing here knows a model family.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from stages.pruning import criteria, recovery
from stages.pruning.narrowing import hook_readers

POSITIONS = 8192  # drawn for a refit: twenty for each weight of an output in the largest of FunASR's

Places = tuple[torch.Tensor, ...]
"""Indices of positions: of the batch, then one for each dimension of a signal or an image."""


@dataclass(frozen=True)
class Layer:
    """Modules by name, the same in a wide and a narrow model.

    maker: the convolution whose outputs are the hidden channels. norm: over them. readers: the convolutions that read
    them, in the order in which they run; by the first it is chosen which channels stay. after: the norm after a reader
    without a bias, which takes the offset of its refit.
    """

    maker: str
    norm: str | None
    readers: tuple[str, ...]
    after: str | None = None


def cut(
    dense: torch.nn.Module,
    small: torch.nn.Module,
    layers: Sequence[Layer],
    inputs: torch.Tensor,
    criterion: str,
    damping: float,
) -> recovery.Refit:
    """Fill `small`, the same model with narrower layers and no weights, from `dense`; return what refits it.

    The refit: in the order of the network, each reader becomes the least-squares map from what the small network before
    it gives to what the dense one said: He et al., "Channel pruning for accelerating very deep neural networks", 2017.

    layers: all that can be narrower. inputs: calibration data, as both models take it.
    """
    narrow = [layer for layer in layers if _width(small, layer) < _width(dense, layer)]
    readers = [name for layer in narrow for name in layer.readers]
    firsts = {layer.readers[0]: layer for layer in narrow}
    norms = {layer.readers[0]: small.get_submodule(layer.after) for layer in narrow if layer.after}
    kept: dict[str, torch.Tensor] = {}  # by the name of a layer's maker
    wanted: dict[str, torch.Tensor] = {}
    errors: dict[str, float] = {}

    def observe(name: str, hidden: torch.Tensor, output: torch.Tensor) -> None:
        places = _draw(output)
        wanted[name] = _rows(output, places)
        if (layer := firsts.get(name)) is not None:
            patches = _patches(dense.get_submodule(name), hidden, places)
            kept[layer.maker] = _choose(dense, layer, patches, _width(small, layer), criterion, damping)

    def rebuild(name: str, hidden: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        conv: Any = small.get_submodule(name)
        places = _draw(output)
        patches, outputs = _patches(conv, hidden, places), wanted.pop(name)
        outputs = outputs[:, kept[name]] if name in kept else outputs
        _refit(conv, patches, outputs, damping, norms.get(name))
        rebuilt: torch.Tensor = conv.forward(hidden)
        errors[name] = recovery.relative_error(_rows(rebuilt, places), outputs)
        return rebuilt

    def refit() -> dict[str, float]:
        with torch.no_grad(), hook_readers({n: small.get_submodule(n) for n in readers}, rebuild, "layers refitted"):
            small(inputs)
        return errors

    with torch.no_grad():
        with hook_readers({name: dense.get_submodule(name) for name in readers}, observe, "layers cut"):
            dense(inputs)
        _copy_weights(dense, small, narrow, kept)
    return refit


def _width(model: torch.nn.Module, layer: Layer) -> int:
    maker: Any = model.get_submodule(layer.maker)
    width: int = maker.out_channels
    return width


def _choose(
    dense: torch.nn.Module, layer: Layer, patches: torch.Tensor, keep: int, criterion: str, damping: float
) -> torch.Tensor:
    """Choose the channels that stay, ascending: of each, all taps."""
    modules: list[Any] = [dense.get_submodule(name) for name in (layer.readers[0], layer.maker)]
    reader, maker = (module.weight for module in modules)
    taps = reader[0, 0].numel()
    weights = [maker.flatten(1).repeat_interleave(taps, dim=0), reader.flatten(1).T]
    chosen = criteria.choose(
        criterion,
        keep,
        weights=weights,
        hidden=patches,
        reader=reader.flatten(1),
        taylor_scores=None,
        damping=damping,
        unit=taps,
    )
    return torch.tensor([index // taps for index in chosen[::taps]])


def _draw(output: torch.Tensor) -> Places:
    """Draw positions of an output, the same ones for the same shape."""
    batch, _, *size = output.shape
    total = batch * int(torch.tensor(size).prod())
    drawn = torch.randperm(total, generator=torch.Generator().manual_seed(0))[:POSITIONS]
    return tuple(torch.unravel_index(drawn, (batch, *size)))


def _rows(output: torch.Tensor, places: Places) -> torch.Tensor:
    """Return what is at the positions: (positions, channels) of (batch, channels, ...)."""
    return output.movedim(1, -1)[places]


def _patches(conv: Any, hidden: torch.Tensor, places: Places) -> torch.Tensor:
    """Return what a convolution's taps see where it gives an output, (positions, channels x taps).

    conv: of stride 1. hidden: (batch, channels, ...).
    """
    padded = torch.nn.functional.pad(hidden, [size for size in reversed(conv.padding) for _ in range(2)])
    taps = torch.cartesian_prod(*(torch.arange(size) for size in conv.kernel_size)).reshape(-1, len(conv.kernel_size))
    batch, *position = places
    seen = [
        padded.movedim(1, -1)[(batch, *(p + t * d for p, t, d in zip(position, tap, conv.dilation, strict=True)))]
        for tap in taps
    ]
    return torch.stack(seen, dim=-1).flatten(1)


def _refit(conv: Any, patches: torch.Tensor, wanted: torch.Tensor, damping: float, after: Any) -> None:
    """Give a convolution the weights that map patches closest to `wanted`, (positions, outputs), in place.

    after: a norm that takes the offset of a convolution without a bias; without, there is none.
    """
    offset = conv.bias is not None or after is not None
    weight, bias = recovery.least_squares(patches, wanted, damping, intercept=offset)
    conv.weight.copy_(weight.view_as(conv.weight))
    if conv.bias is not None:
        conv.bias.copy_(bias)
    elif after is not None:
        after.running_mean -= bias


def _copy_weights(
    dense: torch.nn.Module, small: torch.nn.Module, layers: Sequence[Layer], kept: Mapping[str, torch.Tensor]
) -> None:
    """Copy the dense weights: of makers and norms the channels that stay, and what readers have for those."""
    made = {name: kept[layer.maker] for layer in layers for name in (layer.maker, layer.norm) if name}
    read = {name: kept[layer.maker] for layer in layers for name in layer.readers}
    weights = {}
    for name, wide in dense.state_dict().items():
        module, weight = name.rpartition(".")[0], wide.clone()
        if weight.dim() > 0 and module in made:
            weight = weight[made[module]]
        if weight.dim() > 1 and module in read:
            weight = weight[:, read[module]]
        weights[name] = weight
    small.load_state_dict(weights, assign=True)
