"""Narrower layers: choose hidden channels or attention heads, cut the others, refit what reads the rest.

A layer is what makes hidden channels and the dense layer that reads them, found by FunASR's names: a feed-forward layer
is `first` -> activation [-> LayerNorm over the hidden width] -> `second`; an attention makes queries, keys and values
of several heads, and what its heads gather is read by `linear_out`. Only hidden widths change, so residuals and
everything outside keep their shapes. Nothing here knows a model family: one says how its widths are named in the
config, how it runs over its calibration data, and which positions are not padding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch

from stages.core import progress
from stages.pruning import criteria, recovery

FEED_FORWARD = (("w_1", "w_2"), ("fc1", "fc2"))  # Transformer and SAN-M layers; wav2vec-like ones
# What makes the channels of an attention, and how many of its outputs go with each: a query, a key and a value. The
# values of SAN-M's self-attention are not among them: its memory reads all of them, so they stay.
ATTENTION: tuple[dict[str, int], ...] = ({"linear_q_k_v": 2}, {"linear_q": 1, "linear_k_v": 2})
HEADS = "kept_heads"  # how a config names the number of heads that an attention still has: stages.models.shared.sanm

Run = Callable[[torch.nn.Module], torch.Tensor]
"""Runs a model, dense or small, over the same calibration data, positions aligned, in one pass; gives its logits."""
Inside = Callable[[str, torch.Tensor], torch.Tensor]
"""Of a layer's name and its hidden activations (..., channels): which positions (...) are not padding, bool."""
Hook = Callable[[str, torch.Tensor, torch.Tensor], torch.Tensor | None]


@dataclass(frozen=True)
class Layer:
    """What makes hidden channels, the LayerNorm over them where there is one, and the dense layer that reads them.

    makers: dense layers, and how many outputs of each go with a channel; these come first, in blocks of all channels.
    unit: channels that stay or go together: one, or all of a head.
    """

    makers: tuple[tuple[torch.nn.Linear, int], ...]
    norm: torch.nn.LayerNorm | None
    reader: torch.nn.Linear
    unit: int

    @property
    def width(self) -> int:
        """Return the number of hidden channels, or heads."""
        return self.reader.in_features // self.unit

    @property
    def cost(self) -> int:
        """Return the number of parameters that go with one hidden channel, or head."""
        made = sum(count * (maker.in_features + (maker.bias is not None)) for maker, count in self.makers)
        return self.unit * (made + 2 * (self.norm is not None) + self.reader.out_features)

    def weights(self) -> list[torch.Tensor]:
        """Return all weights that go with a channel, each (channels, ...)."""
        channels = self.reader.in_features
        made = [block for maker, count in self.makers for block in maker.weight[: count * channels].chunk(count)]
        return [*made, self.reader.weight.T]


def layers(model: Any) -> dict[str, Layer]:
    """Find every feed-forward layer and attention of a model, by its module's name, in the order of definition."""
    found = {}
    for name, module in model.named_modules():
        for first, second in FEED_FORWARD:
            if _are_dense(module, first, second):
                norm = getattr(module, "norm", None)
                norm = norm if isinstance(norm, torch.nn.LayerNorm) else None
                found[name] = Layer(((getattr(module, first), 1),), norm, getattr(module, second), unit=1)
        for counts in ATTENTION:
            if _are_dense(module, *counts, "linear_out"):
                makers = tuple((getattr(module, maker), count) for maker, count in counts.items())
                found[name] = Layer(makers, None, module.linear_out, unit=module.d_k)
    return found


def _are_dense(module: torch.nn.Module, *names: str) -> bool:
    return all(isinstance(getattr(module, name, None), torch.nn.Linear) for name in names)


def _group_layers(model: torch.nn.Module, names: Mapping[str, str]) -> dict[str, list[Layer]]:
    """Return the layers of each width that has any. names: as in `widths`."""
    found = layers(model)
    groups = {key: [one for name, one in found.items() if fnmatchcase(name, names[key])] for key in names}
    return {key: group for key, group in groups.items() if group}


def widths(model: torch.nn.Module, names: Mapping[str, str]) -> dict[str, int]:
    """Return the widths that pruning changes.

    names: by the config's key of a width, a pattern of the names of the layers that have it, as
    {"encoder_conf.kept_heads": "encoder.*.self_attn"}.
    """
    return {key: group[0].width for key, group in _group_layers(model, names).items()}


def counter(model: torch.nn.Module, names: Mapping[str, str]) -> Callable[[Mapping[str, int]], int]:
    """Return a function that counts the model's parameters with other widths, 0 included.

    model: its weights are not read. names: as in `widths`.
    """
    groups, total = _group_layers(model, names), sum(p.numel() for p in model.parameters())
    costs = {key: sum(layer.cost for layer in group) for key, group in groups.items()}
    return lambda new: total - sum(costs[key] * (groups[key][0].width - width) for key, width in new.items())


def narrowed(
    model: torch.nn.Module, names: Mapping[str, str], removed: float, steps: Mapping[str, int]
) -> dict[str, int]:
    """Choose narrower widths that remove closest to `removed` of all parameters, each by about the same share.

    Coarsest first, each is rounded, and the others make up for it: an attention may have only four heads.

    model: its weights are not read. names: as in `widths`. steps: which of them may change, and what each is to be a
    multiple of.
    """
    dense, count = widths(model, names), counter(model, names)
    total, lowest = count({}), {key: min(step, dense[key]) for key, step in steps.items()}
    new: dict[str, int] = {}
    coarsest_first = sorted(steps, key=lambda key: steps[key] / dense[key], reverse=True)
    for index, key in enumerate(coarsest_first):
        rest = dict.fromkeys(coarsest_first[index:], 0)
        share = 1 - (count(new) - (1 - removed) * total) / (count(new) - count(new | rest))
        width = round(share * dense[key] / steps[key]) * steps[key]
        new[key] = max(lowest[key], min(width, dense[key]))
    return {key: width for key, width in new.items() if width < dense[key]}


def cut(
    dense: torch.nn.Module, small: torch.nn.Module, run: Run, inside: Inside, criterion: str, damping: float
) -> recovery.Refit:
    """Fill `small`, the same model with narrower layers and no weights, from `dense`; returns what refits it.

    It gets copies of what it has narrower, and shares the rest with `dense`.

    Channels and heads are kept by a criterion of `stages.pruning.criteria`. The refit: in the order of the network,
    each `reader` becomes the least-squares map from what the small network before it gives to what the dense layer
    said: He et al., "Channel pruning for accelerating very deep neural networks", 2017. Either is one pass over the
    data; `taylor` is one more, forward and back, that holds all activations. Held until the refit are the dense
    outputs of all layers, (positions, width of the residual) each, in fp16 as shares of their channels' largest: of
    220 M parameters half a GB less, and a rounding of 0.05 % that a regression over thousands of positions does not
    see.
    """
    before, after = layers(dense), layers(small)
    narrow = [name for name in after if after[name].width < before[name].width]
    kept: dict[str, torch.Tensor] = {}
    wanted: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    errors: dict[str, float] = {}
    readers = {name: before[name].reader for name in narrow}
    units = {name: before[name].unit for name in narrow}
    scores = criteria.taylor(lambda: run(dense), readers, units) if criterion == "taylor" else {}

    def observe(name: str, hidden: torch.Tensor, output: torch.Tensor) -> None:
        rows = inside(name, hidden)
        chosen = criteria.choose(
            criterion,
            after[name].width,
            weights=before[name].weights(),
            hidden=hidden[rows],
            reader=readers[name].weight,
            taylor_scores=scores.get(name),
            damping=damping,
            unit=units[name],
        )
        kept[name] = torch.tensor(chosen)
        largest = output[rows].abs().amax(dim=0).clamp(min=torch.finfo().tiny)
        wanted[name] = (output[rows] / largest).half(), largest

    def rebuild(name: str, hidden: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        rows, reader = inside(name, hidden), after[name].reader
        shares, largest = wanted.pop(name)
        outputs = shares * largest
        recovery.refit([reader], hidden[rows], outputs, damping)
        output = torch.nn.functional.linear(hidden, reader.weight, reader.bias)
        errors[name] = recovery.relative_error(output[rows], outputs)
        return output

    def refit() -> dict[str, float]:
        with torch.no_grad(), hook_readers({name: after[name].reader for name in narrow}, rebuild, "layers refitted"):
            run(small)
        return errors

    with torch.no_grad():
        with hook_readers(readers, observe, "layers cut"):
            run(dense)
        _copy_weights(dense, small, kept)
    return refit


@contextmanager
def hook_readers(readers: Mapping[str, torch.nn.Module], hook: Hook, what: str) -> Iterator[None]:
    """Call `hook` with name, hidden activations and output of each layer that runs; its result replaces the output.

    what: what that does to the layers, for a terminal.
    """

    def hook_for(name: str) -> Callable[..., torch.Tensor | None]:
        def hooked(_: torch.nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor | None:
            replaced = hook(name, inputs[0], output)
            done()
            return replaced

        return hooked

    handles = []
    with progress.counted(len(readers), what) as done:
        try:
            handles = [reader.register_forward_hook(hook_for(name)) for name, reader in readers.items()]
            yield
        finally:
            for handle in handles:
                handle.remove()


def _copy_weights(dense: torch.nn.Module, small: torch.nn.Module, kept: Mapping[str, torch.Tensor]) -> None:
    """Copy the dense weights: of a narrower layer the channels it keeps; all others are the same tensors."""
    weights, before = dense.state_dict(), layers(dense)
    owners = {f"{name}.{part}": name for name in kept for part in small.get_submodule(name).state_dict()}
    for part, place in small.state_dict().items():
        if part in owners:
            channels = before[owners[part]].reader.in_features
            weight = weights.get(
                part, torch.arange(channels)
            ).clone()  # all channels: where none was gone, none is said
            for dimension, (wide, size) in enumerate(zip(weight.shape, place.shape, strict=True)):
                if size < wide:
                    chosen = _kept_weights(kept[owners[part]], channels, wide, size)
                    weight = weight.index_select(dimension, chosen)
            weights[part] = weight
    small.load_state_dict(weights, assign=True)


def _kept_weights(kept: torch.Tensor, channels: int, wide: int, size: int) -> torch.Tensor:
    """Find which `size` of `wide` weights stay: `kept` in each block of channels that loses some, and all others."""
    count = (wide - size) // (channels - len(kept))
    return torch.cat([*(kept + block * channels for block in range(count)), torch.arange(count * channels, wide)])
