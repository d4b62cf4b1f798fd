"""Each criterion keeps the channels that it says matter."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from stages.pruning import criteria, recovery


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def choose(criterion: str, keep: int, hidden: torch.Tensor, reader: torch.Tensor, **given: Any) -> list[int]:
    given = {"weights": [reader.T], "taylor_scores": None, "damping": 1e-6} | given
    return criteria.choose(criterion, keep, hidden=hidden, reader=reader, **given)


def test_selection_keeps_what_cannot_be_rebuilt():
    base = noise(500, 3)
    hidden = torch.cat([base, base[:, :1] + base[:, 1:2], 2 * base[:, 2:]], dim=1)  # 3: 0 + 1, 4: twice 2
    kept = choose("least_squares", 3, hidden, torch.ones(4, 5))
    assert torch.linalg.matrix_rank(hidden[:, kept]) == 3


@pytest.mark.parametrize("seed", range(4))
def test_units_go_whole_and_the_one_whose_loss_costs_least(seed: int):
    hidden, reader = noise(400, 6, seed=seed) @ noise(6, 6, seed=seed + 10), noise(5, 6, seed=seed + 20)
    wanted = hidden @ reader.T

    def cost(kept: list[int]) -> float:
        weight, bias = recovery.least_squares(hidden[:, kept], wanted, 1e-6)
        return recovery.relative_error(hidden[:, kept] @ weight.T + bias, wanted)

    choices = [[0, 1, 2, 3], [0, 1, 4, 5], [2, 3, 4, 5]]
    assert choose("least_squares", 2, hidden, reader, unit=2) == min(choices, key=cost)
    for criterion in ("magnitude", "activation"):
        assert choose(criterion, 2, hidden, reader, unit=2) in choices


def test_magnitude_counts_every_weight_that_goes_with_a_channel():
    made, taps, read = torch.zeros(3, 4), torch.zeros(3, 1, 5, 1), torch.zeros(2, 3)
    made[0], taps[1, 0, 0], read[:, 2] = 1, 3, 1
    assert criteria.magnitude([made, taps, read.T]).tolist() == [4, 9, 2]
    assert choose("magnitude", 2, noise(9, 3), read, weights=[made, taps, read.T]) == [0, 1]


def test_activation_keeps_a_loud_channel_of_small_weight():
    hidden, reader = noise(200, 3), torch.ones(2, 3)
    hidden[:, 1] *= 100
    reader[:, 1] *= 0.1
    assert choose("magnitude", 2, hidden, reader) == [0, 2]
    assert 1 in choose("activation", 2, hidden, reader)


class Network(torch.nn.Module):
    """Three hidden channels; to the logits the second counts the most, and the third not at all."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = (torch.nn.Linear(3, 3, bias=False) for _ in range(3))
        with torch.no_grad():
            self.first.weight.copy_(torch.eye(3))
            self.second.weight.copy_(torch.diag(torch.tensor([0.1, 1.0, 9.0])))
            self.last.weight.copy_(torch.tensor([[1.0, 1, 0], [-1, 1, 0], [0, -1, 0]]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.second(self.first(x)))


@pytest.mark.parametrize("network", [Network(), Network().requires_grad_(False)], ids=["trainable", "frozen"])
def test_taylor_ranks_channels_by_what_the_output_loses(network: Network):
    x = noise(1, 500, 3)
    scores = criteria.taylor(lambda: network(x), {"layer": network.second})["layer"]
    assert scores.argsort(descending=True).tolist() == [1, 0, 2]
    assert scores[2] == 0
    hidden = network.first(x)[0].detach()
    assert choose("activation", 1, hidden, network.second.weight.detach()) == [2]
    assert choose("taylor", 1, hidden, network.second.weight.detach(), taylor_scores=scores) == [1]
    assert not network.second._forward_pre_hooks


def test_taylor_estimates_the_divergence_that_a_channel_s_removal_costs():
    network, x = Network().requires_grad_(False), 0.1 * noise(1, 5000, 3)  # small, so that the second order is enough
    score = criteria.taylor(lambda: network(x), {"layer": network.second})["layer"][1]
    without = x * torch.tensor([1.0, 0, 1])
    cost = recovery.divergence(network(without), network(x))
    assert float(score) / 2 == pytest.approx(float(cost), rel=0.1)


def test_taylor_repeats():
    network, x = Network(), noise(1, 50, 3)
    first, again = (criteria.taylor(lambda: network(x), {"layer": network.second})["layer"] for _ in range(2))
    assert torch.equal(first, again)
