"""Narrow layers keep what can be kept, ignore padding, and give the same weights each time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from stages.pruning import narrowing, recovery
from tests.workspace import PRUNE

CRITERIA = ["magnitude", "activation", "taylor", "least_squares"]


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


class Attention(torch.nn.Module):
    """Heads two wide over a sequence, named as FunASR's cross-attention."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.h, self.d_k = heads, 2
        self.linear_q, self.linear_k_v = torch.nn.Linear(6, heads * 2), torch.nn.Linear(6, heads * 4)
        self.linear_out = torch.nn.Linear(heads * 2, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        key, value = self.linear_k_v(x).chunk(2, dim=-1)
        query, key, value = (y.unflatten(-1, (-1, 2)).transpose(1, 2) for y in (self.linear_q(x), key, value))
        context = torch.nn.functional.scaled_dot_product_attention(query, key, value)
        return x + self.linear_out(context.transpose(1, 2).flatten(2))


def network(encoder: int, decoder: int, heads: int = 4, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    layers = [
        ("encoder", Layer(encoder, norm=False)),
        ("decoder", Layer(decoder, norm=True)),
        ("attention", Attention(heads)),
        ("mlp", Mlp(encoder)),
    ]
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
    defaults: dict[str, Any] = {"inside": everywhere, "criterion": "least_squares", "damping": 1e-6}
    return narrowing.cut(dense, small, lambda model: model(audio), **defaults | settings)()


def test_layers_are_found_by_their_names():
    layers = narrowing.layers(network(16, 24))
    widths = {"encoder": 16, "decoder": 24, "attention": 4, "mlp": 16}
    assert {name: layer.width for name, layer in layers.items()} == widths
    assert [layer.norm is None for layer in layers.values()] == [True, False, True, True]


def test_what_a_channel_or_a_head_costs_is_what_a_narrower_layer_lacks():
    for name, wide in narrowing.layers(network(16, 24)).items():
        narrow = network(15, 23, heads=3).get_submodule(name)
        whole = network(16, 24).get_submodule(name)
        missing = sum(p.numel() for p in whole.parameters()) - sum(p.numel() for p in narrow.parameters())
        assert wide.cost == missing


def test_new_widths_remove_what_was_asked_for():
    dense, names = network(64, 128, heads=8), {"a": "encoder", "b": "decoder", "c": "attention"}
    new = narrowing.narrowed(dense, names, 0.3, {"a": 2, "b": 2, "c": 1})
    assert new["b"] == pytest.approx(2 * new["a"], abs=2)
    assert 0 < new["c"] < 8
    assert all(new[key] % 2 == 0 for key in ("a", "b"))
    small = network(new["a"], new["b"], new["c"])
    small.mlp = dense.mlp
    sizes = [sum(p.numel() for p in model.parameters()) for model in (small, dense)]
    assert 1 - sizes[0] / sizes[1] == pytest.approx(0.3, abs=0.01)
    assert narrowing.counter(dense, names)(new) == sizes[0]
    assert narrowing.widths(small, names) == new


def test_what_may_not_change_stays():
    new = narrowing.narrowed(network(64, 128), {"a": "encoder", "b": "decoder"}, 0.1, {"a": 1})
    assert new.keys() == {"a"}


def test_more_than_there_is_leaves_one_step_of_it():
    assert narrowing.narrowed(network(64, 64), {"a": "mlp"}, 0.9, {"a": 8}) == {"a": 8}


def test_a_width_that_no_layer_has_is_none_to_cut():
    assert narrowing.widths(network(64, 64), {"a": "mlp", "b": "elsewhere.*"}).keys() == {"a"}


def test_the_cut_alone_keeps_the_weights_that_stay(audio: torch.Tensor):
    dense, small = network(16, 24), network(8, 12, heads=2, seed=1)
    narrowing.cut(dense, small, lambda model: model(audio), everywhere, "magnitude", 1e-6)
    for name in ("encoder", "attention"):
        wide, narrow = (narrowing.layers(model)[name].reader.weight.T.tolist() for model in (dense, small))
        assert all(channel in wide for channel in narrow)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_heads_that_say_nothing_go_whole_and_at_no_loss(audio: torch.Tensor, criterion: str):
    dense, small = network(16, 24), network(16, 24, heads=2, seed=1)
    with torch.no_grad():
        for head in (0, 2):
            dense.attention.linear_out.weight[:, 2 * head : 2 * head + 2] = 0
            for makes in (dense.attention.linear_q, dense.attention.linear_k_v):
                for block in makes.weight.split(8):
                    block[2 * head : 2 * head + 2] = 0
    narrowing.cut(dense, small, lambda model: model(audio), everywhere, criterion, 1e-9)
    torch.testing.assert_close(small(audio), dense(audio), atol=1e-5, rtol=0)


def test_channels_that_say_nothing_of_their_own_go_at_no_loss(audio: torch.Tensor):
    dense = network(16, 24)
    with torch.no_grad():
        for name in ("encoder", "mlp"):
            layer = narrowing.layers(dense)[name]
            ((first, _),) = layer.makers
            first.weight[8:], first.bias[8:] = first.weight[:8], first.bias[:8]
            layer.reader.weight[:, 8:] *= 3
    small = network(8, 24, seed=1)
    errors = cut(small, dense, audio)
    assert errors.keys() == {"encoder", "mlp"}
    assert max(errors.values()) < 1e-6
    torch.testing.assert_close(small(audio), dense(audio), atol=1e-3, rtol=0)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_a_refit_beats_the_bare_cut(audio: torch.Tensor, criterion: str):
    dense, small, bare = network(32, 48), network(20, 30, heads=3, seed=1), network(20, 30, heads=3)
    errors = cut(small, dense, audio, criterion=criterion)
    assert errors.keys() == {"encoder", "decoder", "attention", "mlp"}
    narrowing.cut(dense, bare, lambda model: model(audio), everywhere, criterion, 1e-6)
    refitted, unfitted = ((model(audio) - dense(audio)).square().mean() for model in (small, bare))
    assert refitted < 0.5 * unfitted


def test_neither_a_refit_nor_distillation_touches_the_dense_model(audio: torch.Tensor):
    dense, small = network(32, 48), network(20, 48, heads=3, seed=1)
    before = {name: weight.clone() for name, weight in dense.state_dict().items()}
    cut(small, dense, audio)
    better = iter((2.0, 1.0, 0.0))
    settings = PRUNE.model_copy(update={"distill_steps": 3, "learning_rate": 0.1})
    recovery.distill(small, lambda _: small(audio).square().mean(), lambda: next(better), 3.0, settings)
    assert all(torch.equal(weight, before[name]) for name, weight in dense.state_dict().items())
    assert not torch.equal(small.decoder.w_1.weight, dense.decoder.w_1.weight)


def test_padding_has_no_say(audio: torch.Tensor):
    dense = network(16, 24)

    def inside(_: str, hidden: torch.Tensor) -> torch.Tensor:
        return everywhere(_, hidden) & (torch.arange(hidden.shape[1]) < 150)

    padded = audio.clone()
    padded[:, 150:] = 100.0
    first, second = network(8, 12), network(8, 12)
    first.attention, second.attention, dense.attention = (torch.nn.Identity() for _ in range(3))  # it would look there
    cut(first, dense, padded, inside=inside)
    cut(second, dense, audio[:, :150])
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_the_same_inputs_give_the_same_weights_and_leave_no_hooks(audio: torch.Tensor):
    dense, first, second = network(16, 24), network(8, 12, heads=2), network(8, 12, heads=2, seed=1)
    before = dense(audio)
    assert cut(first, dense, audio) == cut(second, dense, audio)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert torch.equal(dense(audio), before)
    assert not any(module._forward_hooks for model in (dense, first) for module in model.modules())
