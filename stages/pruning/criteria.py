"""Which channels of a layer stay: four criteria, the same for every family.

A channel is a column of the dense layer that reads it, the `reader`, and a row of whatever makes it. Channels stay or
go in units: each on its own, or all of an attention's head together. Each criterion is a score per unit, the larger the
better kept, but for `least_squares`, which chooses units as a set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from stages.pruning import recovery

LABEL_SEED = 0  # of the labels drawn for `taylor`: any will do, as long as the bytes repeat

Run = Callable[[], torch.Tensor]
"""Runs a model over its calibration data and gives its logits (..., classes)."""


def choose(
    criterion: str,
    keep: int,
    *,
    weights: Sequence[torch.Tensor],
    hidden: torch.Tensor,
    reader: torch.Tensor,
    taylor_scores: torch.Tensor | None,
    damping: float,
    unit: int = 1,
) -> list[int]:
    """Choose the `keep` units, of `unit` channels, that a criterion of `PruneParams` prefers.

    Returns:
        Their channels, ascending.

    weights: everything that goes with a channel, each (channels, ...). hidden: the channels on calibration data,
    (positions, channels). reader: the weight (out, channels) that they are read with. taylor_scores: (units,) as
    `taylor` gives them, where that is the criterion.
    """
    if keep * unit == hidden.shape[1]:
        return list(range(hidden.shape[1]))
    if criterion == "least_squares":
        kept = least_squares(recovery.gram(hidden), reader, keep, damping, unit)
    elif taylor_scores is not None:
        kept = sorted(taylor_scores.topk(keep).indices.tolist())
    else:
        scores = activation(hidden, reader) if criterion == "activation" else magnitude(weights)
        kept = sorted(scores.unflatten(0, (-1, unit)).sum(dim=1).topk(keep).indices.tolist())  # type: ignore[no-untyped-call]
    return [index * unit + channel for index in kept for channel in range(unit)]


def magnitude(weights: Sequence[torch.Tensor]) -> torch.Tensor:
    """Sum the squared weights that go with a channel, (channels,): the group norm of Fang et al., "DepGraph", 2023."""
    return torch.stack([weight.flatten(1).square().sum(dim=1) for weight in weights]).sum(dim=0)


def activation(hidden: torch.Tensor, reader: torch.Tensor) -> torch.Tensor:
    """Multiply a channel's mean square by the squared norm of the weights that read it, (channels,).

    What the reader's output loses with the channel, were channels independent. Sun et al., "A simple and effective
    pruning approach for large language models" (Wanda), 2024, scores a weight by |w| * ||x||; this is the sum of its
    squares over a column.
    """
    return hidden.square().mean(dim=0) * reader.square().sum(dim=0)


def taylor(
    run: Run, readers: Mapping[str, torch.nn.Module], units: Mapping[str, int] | None = None
) -> dict[str, torch.Tensor]:
    """Compute the mean square of activation times gradient of each unit that a reader gets, (units,) by its name.

    Molchanov et al., "Importance estimation for neural network pruning", 2019, equation 8, with a gate on each channel,
    or on each head: Michel et al., "Are sixteen heads really better than one?", 2019, take its absolute value.
    The gradient is of log p(y), with y drawn from the model's own posteriors: the divergence from a model to itself has
    no gradient, but its curvature is the Fisher information, which is the mean square of just this gradient (Theis et
    al., "Faster gaze prediction with dense networks and Fisher pruning", 2018). So the score is, to second order and
    for one position at a time, the divergence that removing the channel costs. Padding has no part in the logits, so
    its gradient is zero and it needs no mask.

    units: channels of a unit, by the reader's name; by itself each channel is one.
    """
    inputs_of: dict[str, torch.Tensor] = {}

    def watch(name: str) -> Callable[..., None]:
        def hook(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            inputs_of[name] = inputs[0] if inputs[0].requires_grad else inputs[0].requires_grad_()

        return hook

    handles = [reader.register_forward_pre_hook(watch(name)) for name, reader in readers.items()]
    try:
        with torch.enable_grad():
            posteriors = run().log_softmax(dim=-1).flatten(0, -2)
            generator = torch.Generator().manual_seed(LABEL_SEED)
            drawn = torch.multinomial(posteriors.detach().exp(), 1, generator=generator)
            likelihood = posteriors.gather(1, drawn).sum()
    finally:
        for handle in handles:
            handle.remove()
    gradients = torch.autograd.grad(likelihood, list(inputs_of.values()))
    effects = {name: x.detach() * g for (name, x), g in zip(inputs_of.items(), gradients, strict=True)}
    by_unit = {name: effect.unflatten(-1, (-1, (units or {}).get(name, 1))) for name, effect in effects.items()}  # type: ignore[no-untyped-call]
    return {name: effect.sum(dim=-1).flatten(0, -2).square().mean(dim=0) for name, effect in by_unit.items()}


def least_squares(moments: torch.Tensor, reader: torch.Tensor, keep: int, damping: float, unit: int) -> list[int]:
    """Choose the `keep` units, of `unit` channels, from which the reader's output can best be rebuilt, ascending.

    One unit after another is dropped: the one whose loss costs least once the others are refitted to
    make up for it, which the inverse moments give in closed form. Hassibi & Stork, "Second order
    derivatives for network pruning: Optimal Brain Surgeon", 1992, by whole columns, and whole heads, as in
    Kurtic et al., "ZipLM", 2023.

    moments: `recovery.gram` of the channels, (n + 1, n + 1). reader: (out, n).
    """
    columns, inverse = reader.double().T.clone(), torch.linalg.inv(recovery.damped(moments, damping))
    dropped = torch.zeros(len(columns) // unit, dtype=torch.bool)
    for _ in range(len(dropped) - keep):
        worst = int(_costs(columns, inverse, unit).masked_fill(dropped, torch.inf).argmin())
        lost = slice(worst * unit, (worst + 1) * unit)
        share = torch.linalg.solve(inverse[lost, lost], inverse[:, lost], left=False)
        columns -= share[:-1] @ columns[lost]
        inverse = inverse - share @ inverse[lost]
        inverse[lost, lost] = torch.eye(unit, dtype=inverse.dtype)  # columns of a dropped unit are zero from here on
        dropped[worst] = True
    return [int(i) for i in torch.nonzero(~dropped)[:, 0]]


def _costs(columns: torch.Tensor, inverse: torch.Tensor, unit: int) -> torch.Tensor:
    """Compute what losing each unit costs once the others make up for it, (units,): trace of W^T B^-1 W.

    B is the unit's block of the inverse moments.
    """
    if unit == 1:
        return columns.square().sum(dim=1) / inverse.diagonal()[:-1]
    units = columns.unflatten(0, (-1, unit))  # type: ignore[no-untyped-call]
    blocks = torch.stack([inverse[i : i + unit, i : i + unit] for i in range(0, len(columns), unit)])
    costs: torch.Tensor = (units * torch.linalg.solve(blocks, units)).sum(dim=(1, 2))
    return costs
