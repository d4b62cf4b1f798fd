"""Narrow feed-forward layers keep what can be kept, ignore padding, and give the same weights each time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from stages.core import feedforward, recovery
from stages.core.errors import UserError


class Layer(torch.nn.Module):
    """A SAN-M decoder's feed-forward layer, or with no `norm` its encoder's."""

    def __init__(self, width: int, *, norm: bool) -> None:
        super().__init__()
        self.w_1, self.w_2 = torch.nn.Linear(6, width), torch.nn.Linear(width, 6, bias=not norm)
        if norm:
            self.norm = torch.nn.LayerNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.w_1(x))
        return x + self.w_2(self.norm(hidden) if hasattr(self, "norm") else hidden)


class Mlp(torch.nn.Module):
    """A wav2vec-like one: its `norm` is no LayerNorm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.norm, self.fc2 = torch.nn.Linear(6, width), torch.nn.Identity(), torch.nn.Linear(width, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.fc2(torch.nn.functional.gelu(self.fc1(x)))


def network(encoder: int, decoder: int, seed: int = 0) -> torch.nn.Sequential:
    torch.manual_seed(seed)
    layers = [("encoder", Layer(encoder, norm=False)), ("decoder", Layer(decoder, norm=True)), ("mlp", Mlp(encoder))]
    model = torch.nn.Sequential()
    for name, layer in layers:
        model.add_module(name, layer)
    return model


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the tensors are tiny: threads would wait for each other
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def audio() -> torch.Tensor:
    return torch.randn(3, 200, 6, generator=torch.Generator().manual_seed(1))


def everywhere(_: str, hidden: torch.Tensor) -> torch.Tensor:
    return torch.ones(hidden.shape[:-1], dtype=torch.bool)


def cut(small: torch.nn.Module, dense: torch.nn.Module, audio: torch.Tensor, **settings: Any) -> dict[str, float]:
    settings = {"inside": everywhere, "criterion": "least_squares", "damping": 1e-6} | settings
    return feedforward.cut(dense, small, lambda model: model(audio), **settings)()


def test_pairs_are_found_by_either_name():
    pairs = feedforward.pairs(network(16, 24))
    assert {name: pair.width for name, pair in pairs.items()} == {"encoder": 16, "decoder": 24, "mlp": 16}
    assert [pair.norm is None for pair in pairs.values()] == [True, False, True]


def test_what_a_channel_costs_is_what_a_narrower_layer_lacks():
    for name, wide in feedforward.pairs(network(16, 24)).items():
        narrow = network(15, 23).get_submodule(name)
        whole = network(16, 24).get_submodule(name)
        missing = sum(p.numel() for p in whole.parameters()) - sum(p.numel() for p in narrow.parameters())
        assert wide.cost == missing


def test_new_widths_remove_what_was_asked_for():
    dense = network(64, 128)
    widths = feedforward.narrowed(dense, {"encoder": "a", "decoder": "b"}, removed=0.3, round_to=2)
    assert widths["b"] == pytest.approx(2 * widths["a"], abs=2)
    assert all(width % 2 == 0 for width in widths.values())
    pairs = feedforward.pairs(dense)
    gone = sum(pairs[n].cost * (pairs[n].width - widths[k]) for n, k in (("encoder", "a"), ("decoder", "b")))
    assert gone / sum(p.numel() for p in dense.parameters()) == pytest.approx(0.3, abs=0.01)


def test_more_than_there_is_cannot_be_removed():
    with pytest.raises(UserError, match=r"can give 2\d\.\d% of its parameters.* wanted 90\.0%.*prune\.MODEL\.ratio"):
        feedforward.narrowed(network(64, 64), {"mlp": "a"}, removed=0.9, round_to=8)


def test_the_cut_alone_keeps_the_weights_that_stay(audio: torch.Tensor):
    dense, small = network(16, 24), network(8, 12, seed=1)
    feedforward.cut(dense, small, lambda model: model(audio), everywhere, "magnitude", 1e-6)
    wide, narrow = (feedforward.pairs(model)["encoder"].second.weight.T.tolist() for model in (dense, small))
    assert all(channel in wide for channel in narrow)


def test_channels_that_say_nothing_of_their_own_go_at_no_loss(audio: torch.Tensor):
    dense = network(16, 24)
    with torch.no_grad():
        for name in ("encoder", "mlp"):
            first, second, _ = (getattr(feedforward.pairs(dense)[name], x) for x in ("first", "second", "norm"))
            first.weight[8:], first.bias[8:] = first.weight[:8], first.bias[:8]
            second.weight[:, 8:] *= 3
    small = network(8, 24, seed=1)
    errors = cut(small, dense, audio)
    assert errors.keys() == {"encoder", "mlp"}
    assert max(errors.values()) < 1e-6
    torch.testing.assert_close(small(audio), dense(audio), atol=1e-3, rtol=0)


@pytest.mark.parametrize("criterion", ["magnitude", "activation", "taylor", "least_squares"])
def test_a_refit_beats_the_bare_cut(audio: torch.Tensor, criterion: str):
    dense, small = network(32, 48), network(20, 30, seed=1)
    errors = cut(small, dense, audio, criterion=criterion)
    assert errors.keys() == {"encoder", "decoder", "mlp"}
    bare, narrow = network(20, 30, seed=1), feedforward.pairs(small)
    feedforward._copy(dense, bare, {name: list(range(pair.width)) for name, pair in narrow.items()})
    refitted, unfitted = ((model(audio) - dense(audio)).square().mean() for model in (small, bare))
    assert refitted < 0.5 * unfitted


def test_neither_a_refit_nor_distillation_touches_the_dense_model(audio: torch.Tensor):
    dense, small = network(32, 48), network(20, 48, seed=1)
    before = {name: weight.clone() for name, weight in dense.state_dict().items()}
    cut(small, dense, audio)
    better = iter((3.0, 2.0, 1.0, 0.0))
    settings = {"validate_every": 1, "patience": 3, "steps": 3, "learning_rate": 0.1, "seed": 0}
    recovery.distill(small, lambda _: small(audio).square().mean(), validate=lambda: next(better), **settings)
    assert all(torch.equal(weight, before[name]) for name, weight in dense.state_dict().items())
    assert not torch.equal(small.decoder.w_1.weight, dense.decoder.w_1.weight)


def test_padding_has_no_say(audio: torch.Tensor):
    dense = network(16, 24)

    def inside(_: str, hidden: torch.Tensor) -> torch.Tensor:
        return everywhere(_, hidden) & (torch.arange(hidden.shape[1]) < 150)

    padded = audio.clone()
    padded[:, 150:] = 100.0
    first, second = network(8, 12), network(8, 12)
    cut(first, dense, padded, inside=inside)
    cut(second, dense, audio[:, :150])
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_the_same_inputs_give_the_same_weights_and_leave_no_hooks(audio: torch.Tensor):
    dense, first, second = network(16, 24), network(8, 12), network(8, 12, seed=1)
    before = dense(audio)
    assert cut(first, dense, audio) == cut(second, dense, audio)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert torch.equal(dense(audio), before)
    assert not any(module._forward_hooks for model in (dense, first) for module in model.modules())
