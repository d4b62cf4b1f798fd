"""Narrower feed-forward layers: choose hidden channels, cut the others, refit what reads the rest.

A feed-forward layer is a pair of dense layers, `first` -> activation [-> LayerNorm over the hidden width] -> `second`,
found by FunASR's names for them. Only its hidden width changes, so attention, residuals and everything outside keep
their shapes. Nothing here knows a model family: one says how its widths are named in the config, how it runs over its
calibration data, and which positions are not padding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from stages.core import criteria, recovery
from stages.core.errors import UserError

NAMES = (("w_1", "w_2"), ("fc1", "fc2"))  # Transformer and SAN-M layers; wav2vec-like ones

Run = Callable[[torch.nn.Module], torch.Tensor]
"""Runs a model, dense or small, over the same calibration data, positions aligned, in one pass; gives its logits."""
Inside = Callable[[str, torch.Tensor], torch.Tensor]
"""Of a pair's name and its hidden activations (..., width): which positions (...) are not padding, bool."""
Hook = Callable[[str, torch.Tensor, torch.Tensor], torch.Tensor | None]


@dataclass(frozen=True)
class Pair:
    """The two dense layers of a feed-forward layer, and the LayerNorm between them where there is one."""

    first: torch.nn.Linear
    second: torch.nn.Linear
    norm: torch.nn.LayerNorm | None

    @property
    def width(self) -> int:
        """Hidden channels."""
        return self.second.in_features

    @property
    def cost(self) -> int:
        """Parameters that go with one hidden channel."""
        bias, norm = self.first.bias is not None, self.norm is not None
        return self.first.in_features + bias + 2 * norm + self.second.out_features


def pairs(model: torch.nn.Module) -> dict[str, Pair]:
    """Every feed-forward layer of a model by its module's name, in the order of definition."""
    found = {}
    for name, module in model.named_modules():
        for names in NAMES:
            first, second = (getattr(module, n, None) for n in names)
            if isinstance(first, torch.nn.Linear) and isinstance(second, torch.nn.Linear):
                norm = getattr(module, "norm", None)
                found[name] = Pair(first, second, norm if isinstance(norm, torch.nn.LayerNorm) else None)
    return found


def counter(model: torch.nn.Module, widths: Mapping[str, str]) -> Callable[[Mapping[str, int]], int]:
    """How many parameters the model has with other widths, by the keys and prefixes of `narrowed`."""
    found, total = pairs(model), sum(p.numel() for p in model.parameters())
    groups = {key: [p for name, p in found.items() if name.startswith(prefix)] for prefix, key in widths.items()}
    costs = {key: sum(pair.cost for pair in group) for key, group in groups.items()}
    dense = {key: group[0].width for key, group in groups.items()}
    return lambda new: total - sum(costs[key] * (dense[key] - width) for key, width in new.items())


def narrowed(model: torch.nn.Module, widths: Mapping[str, str], removed: float, round_to: int) -> dict[str, int]:
    """New widths, multiples of `round_to` and of equal share, that remove closest to `removed` of all parameters.

    model: may be on the meta device. widths: the config's key of a width by the prefix of its pairs' names,
    as {"encoder.": "encoder_conf"}; all pairs of a prefix have one width.

    Raises:
        UserError: no feed-forward widths remove that much.
    """
    found, total = pairs(model), sum(p.numel() for p in model.parameters())
    groups = {prefix: [p for name, p in found.items() if name.startswith(prefix)] for prefix in widths}

    def at(share: float) -> dict[str, int]:
        dense = {prefix: group[0].width for prefix, group in groups.items() if group}
        return {
            prefix: min(width, max(1, round(share * width / round_to)) * round_to) for prefix, width in dense.items()
        }

    def gone(new: Mapping[str, int]) -> float:
        return sum(p.cost * (p.width - width) for prefix, width in new.items() for p in groups[prefix]) / total

    most = gone(at(0))
    if most < removed:
        raise UserError(
            f"prune: the feed-forward layers of this model can give {most:.1%} of its parameters, in widths that are "
            f"multiples of {round_to}; wanted {removed:.1%}. Lower prune.MODEL.ratio, or round_to"
        )
    best = min((at(share) for share in np.linspace(0, 1, 4097)), key=lambda new: abs(gone(new) - removed))
    return {widths[prefix]: width for prefix, width in best.items()}


def cut(
    dense: torch.nn.Module, small: torch.nn.Module, run: Run, inside: Inside, criterion: str, damping: float
) -> recovery.Refit:
    """Fill `small`, the same model with narrower pairs and no weights, from `dense`; returns what refits it.

    It gets copies of what it has narrower, and shares the rest with `dense`.

    Channels are kept by a criterion of `stages.core.criteria`. The refit: in the order of the network, each `second`
    becomes the least-squares map from what the small network before it gives to what the dense layer said: He et al.,
    "Channel pruning for accelerating very deep neural networks", 2017. Either is one pass over the data; `taylor` is
    one more, forward and back, that holds all activations. Held until the refit are the dense outputs of all pairs,
    (positions, width of the residual) each.
    """
    before, after = pairs(dense), pairs(small)
    narrow = [name for name in after if after[name].width < before[name].width]
    kept: dict[str, list[int]] = {}
    wanted: dict[str, torch.Tensor] = {}
    errors: dict[str, float] = {}
    readers = {name: before[name].second for name in narrow}
    scores = criteria.taylor(lambda: run(dense), readers) if criterion == "taylor" else {}

    def observe(name: str, hidden: torch.Tensor, output: torch.Tensor) -> None:
        rows = inside(name, hidden)
        first, second = before[name].first.weight, before[name].second.weight
        kept[name] = criteria.choose(
            criterion,
            after[name].width,
            weights=[first, second.T],
            hidden=hidden[rows],
            reader=second,
            taylor_scores=scores.get(name),
            damping=damping,
        )
        wanted[name] = output[rows]

    def rebuild(name: str, hidden: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        rows, second = inside(name, hidden), after[name].second
        recovery.refit([second], hidden[rows], wanted[name], damping)
        output = torch.nn.functional.linear(hidden, second.weight, second.bias)
        errors[name] = recovery.relative_error(output[rows], wanted.pop(name))
        return output

    def refit() -> dict[str, float]:
        with torch.no_grad(), _hooked({name: after[name] for name in narrow}, rebuild):
            run(small)
        return errors

    with torch.no_grad():
        with _hooked({name: before[name] for name in narrow}, observe):
            run(dense)
        _copy(dense, small, kept)
    return refit


@contextmanager
def _hooked(layers: Mapping[str, Pair], hook: Hook) -> Iterator[None]:
    """`hook` gets the name, hidden activations and output of each pair that runs; its result replaces the output."""

    def on(name: str) -> Callable[..., torch.Tensor | None]:
        return lambda _, given, output: hook(name, given[0], output)

    handles = [pair.second.register_forward_hook(on(name)) for name, pair in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _copy(dense: torch.nn.Module, small: torch.nn.Module, kept: Mapping[str, list[int]]) -> None:
    """The dense weights: of a pair that is narrower copies of the channels it keeps, elsewhere the same tensors."""
    weights = dense.state_dict()
    for name, place in small.state_dict().items():
        if (pair := name.rsplit(".", 2)[0]) in kept:
            weight = weights[name].clone()
            for dimension, width in enumerate(place.shape):
                if width != weight.shape[dimension]:
                    weight = weight.index_select(dimension, torch.tensor(kept[pair]))
            weights[name] = weight
    small.load_state_dict(weights, assign=True)
