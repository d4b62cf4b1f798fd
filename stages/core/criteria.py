"""Which channels of a layer stay: four criteria, the same for every family.

A channel is a column of the dense layer that reads it, the `reader`, and a row of whatever makes it. Each criterion is
a score per channel, the larger the better kept, but for `least_squares`, which chooses channels as a set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from stages.core import recovery

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
) -> list[int]:
    """The `keep` channels that a criterion of `PruneParams` prefers, in ascending order.

    weights: everything that goes with a channel, each (channels, ...). hidden: the channels on calibration data,
    (positions, channels). reader: the weight (out, channels) that they are read with. taylor_scores: (channels,) as
    `taylor` gives them, where that is the criterion.
    """
    if keep == hidden.shape[1]:
        return list(range(keep))
    if criterion == "least_squares":
        return least_squares(recovery.gram(hidden), reader, keep, damping)
    if taylor_scores is not None:
        scores = taylor_scores
    else:
        scores = activation(hidden, reader) if criterion == "activation" else magnitude(weights)
    return sorted(scores.topk(keep).indices.tolist())


def magnitude(weights: Sequence[torch.Tensor]) -> torch.Tensor:
    """Squared weights that go with a channel, (channels,): the group norm of Fang et al., "DepGraph", 2023."""
    return torch.stack([weight.flatten(1).square().sum(dim=1) for weight in weights]).sum(dim=0)


def activation(hidden: torch.Tensor, reader: torch.Tensor) -> torch.Tensor:
    """Mean square of a channel times the squared norm of the weights that read it, (channels,).

    What the reader's output loses with the channel, were channels independent. Sun et al., "A simple and effective
    pruning approach for large language models" (Wanda), 2024, scores a weight by |w| * ||x||; this is the sum of its
    squares over a column.
    """
    return hidden.square().mean(dim=0) * reader.square().sum(dim=0)


def taylor(run: Run, readers: Mapping[str, torch.nn.Module]) -> dict[str, torch.Tensor]:
    """Mean square of activation times gradient of each channel that a reader is given, (channels,) by its name.

    Molchanov et al., "Importance estimation for neural network pruning", 2019, equation 8, with a gate on each channel.
    The gradient is of log p(y), with y drawn from the model's own posteriors: the divergence from a model to itself has
    no gradient, but its curvature is the Fisher information, which is the mean square of just this gradient (Theis et
    al., "Faster gaze prediction with dense networks and Fisher pruning", 2018). So the score is, to second order and
    for one position at a time, the divergence that removing the channel costs. Padding has no part in the logits, so
    its gradient is zero and it needs no mask.
    """
    given: dict[str, torch.Tensor] = {}

    def watch(name: str) -> Callable[..., None]:
        def hook(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            given[name] = inputs[0] if inputs[0].requires_grad else inputs[0].requires_grad_()

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
    gradients = torch.autograd.grad(likelihood, list(given.values()))
    pairs = zip(given.items(), gradients, strict=True)
    return {name: (x.detach() * g).flatten(0, -2).square().mean(dim=0) for (name, x), g in pairs}


def least_squares(moments: torch.Tensor, reader: torch.Tensor, keep: int, damping: float) -> list[int]:
    """The `keep` channels from which the reader's output can best be rebuilt, in ascending order.

    One channel after another is dropped: the one whose loss costs least once the others are refitted to
    make up for it, which the inverse moments give in closed form. Hassibi & Stork, "Second order
    derivatives for network pruning: Optimal Brain Surgeon", 1992, by whole columns as in Kurtic et al.,
    "ZipLM", 2023.

    moments: `recovery.gram` of the channels, (n + 1, n + 1). reader: (out, n).
    """
    columns, inverse = reader.double().T.clone(), torch.linalg.inv(recovery.damped(moments, damping))
    dropped = torch.zeros(len(columns), dtype=torch.bool)
    for _ in range(len(columns) - keep):
        cost = columns.square().sum(dim=1) / inverse.diagonal()[:-1]
        worst = int(cost.masked_fill(dropped, torch.inf).argmin())
        share = inverse[:, worst] / inverse[worst, worst]
        columns -= torch.outer(share[:-1], columns[worst])
        inverse = inverse - torch.outer(share, inverse[worst])
        inverse[worst, worst] = 1  # rows of a dropped channel are zero from here on
        dropped[worst] = True
    return [int(i) for i in torch.nonzero(~dropped)[:, 0]]
