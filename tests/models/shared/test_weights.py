"""Weights load as FunASR loads them; what is wrong with a file is one line that names it and what is in it."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stages.core.errors import UserError
from stages.models import fsmn_vad
from stages.models.shared import weights
from stages.models.shared.checkpoint import left_out

Weights = dict[str, Any]


@pytest.fixture
def folder(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))


@pytest.fixture
def good(tiny_checkpoint: Path) -> Weights:
    loaded: Weights = torch.load(tiny_checkpoint / "model.pt", weights_only=True)
    return loaded


def scoped(good: Weights, prefix: str) -> Weights:
    return {prefix + name: weight for name, weight in good.items()}


def funasr_loads(folder: Path) -> Weights:
    """What FunASR's own loader makes of a checkpoint's weights."""
    from funasr.train_utils.load_pretrained_model import load_pretrained_model

    config = fsmn_vad.read_config(folder)
    model = fsmn_vad.build(config)
    load_pretrained_model(str(folder / "model.pt"), model, scope_map=config.get("scope_map", []))
    found: Weights = model.state_dict()
    return found


@pytest.mark.parametrize(
    ("wrap", "scope_map"),
    [
        pytest.param(lambda w: w, "", id="plain"),
        pytest.param(lambda w: scoped(w, "module."), "", id="data-parallel"),
        pytest.param(lambda w: w | {k: v + 1 for k, v in scoped(w, "module.").items()}, "", id="both"),
        pytest.param(lambda w: {"state_dict": w, "epoch": 3}, "", id="trainer"),
        pytest.param(lambda w: {"model": scoped(w, "d2v."), "optimizer": {}}, "scope_map: [d2v., none]\n", id="scope"),
        pytest.param(lambda w: scoped(w, "a.b."), "scope_map: 'a.b.encoder.,encoder.'\n", id="scope-text"),
        pytest.param(lambda w: w | {"_ema": {"x": torch.zeros(2)}, "head.weight": torch.zeros(3)}, "", id="extra"),
        pytest.param(lambda w: {k: v.half() for k, v in w.items()}, "", id="fp16"),
        pytest.param(lambda w: {k: v.bfloat16() for k, v in w.items()}, "", id="bf16"),
        pytest.param(lambda w: {k: v.double() for k, v in w.items()}, "", id="fp64"),
    ],
)
def test_weights_are_those_that_funasr_loads(folder: Path, good: Weights, wrap, scope_map: str):
    torch.save(wrap(good), folder / "model.pt")
    with (folder / "config.yaml").open("a") as f:
        f.write(scope_map)
    found, expected = fsmn_vad.load(folder).state_dict(), funasr_loads(folder)
    assert found.keys() == expected.keys()
    for name, weight in found.items():
        assert weight.dtype == torch.float32
        torch.testing.assert_close(weight, expected[name].float(), rtol=0, atol=0)


def test_what_is_left_out_is_named(folder: Path, good: Weights):
    extra = {"_ema": {"x": torch.zeros(2)}, "head.weight": torch.zeros(3), "module.head": torch.zeros(1)}
    torch.save({"model": good | extra}, folder / "model.pt")
    with (folder / "config.yaml").open("a") as f:
        f.write("optim: adam\noptim_conf: {lr: 1e-3}\n")
    assert left_out(fsmn_vad, folder) == {
        "unknown_config": ["optim", "optim_conf"],
        "unused_weights": ["_ema", "head.weight", "module.head"],
    }


def first(good: Weights) -> str:
    return next(iter(good))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        pytest.param(lambda w: dict(list(w.items())[:-2]), r"2 missing: encoder\.out_linear2", id="missing"),
        pytest.param(lambda w: dict(list(w.items())[:3]), r"21 missing: (\S+, ){10}\.\.\.$", id="many-missing"),
        pytest.param(
            lambda w: w | {first(w): w[first(w)][1:]},
            r"1 of another shape: \S+ \(found \[23, 400\], wanted",
            id="shape",
        ),
        pytest.param(lambda w: w | {first(w): w[first(w)] * torch.nan}, "NaN or infinity in 1 weights", id="nan"),
        pytest.param(lambda w: w | {first(w): w[first(w)] / 0}, "NaN or infinity in 1 weights: encoder", id="inf"),
        pytest.param(
            lambda w: w | {first(w): w[first(w)].double() + 1e300}, "NaN or infinity in 1 weights", id="beyond-fp32"
        ),
        pytest.param(
            lambda w: w | {first(w): w[first(w)].to(torch.complex64)},
            r"1 of another kind: \S+ \(torch\.complex64, wanted floating point\)",
            id="complex",
        ),
        pytest.param(
            lambda w: {k: v.to(torch.int8) for k, v in w.items()},
            r"24 of another kind: \S+ \(torch\.int8, wanted floating point\), .*, \.\.\.$",
            id="integers",
        ),
        pytest.param(lambda w: w | {first(w): w[first(w)] > 0}, r"torch\.bool, wanted floating point", id="bool"),
        pytest.param(lambda w: w | {first(w): w[first(w)].to_sparse()}, "torch.sparse_coo", id="sparse"),
        pytest.param(lambda w: w | {first(w): [1.0]}, r"1 of another kind: \S+ \(list\)", id="list"),
        pytest.param(lambda _: {"a": torch.zeros(1)}, "found none of the 24 .*; the file has a$", id="other-names"),
        pytest.param(lambda _: {}, "found none of the 24 .*; the file has nothing$", id="empty"),
        pytest.param(lambda _: torch.zeros(3), "found Tensor, wanted a mapping", id="tensor"),
        pytest.param(lambda w: {3: w}, "found dict, wanted a mapping of names", id="numbers-for-names"),
        pytest.param(
            lambda w: w | {"valid_loss": np.float64(1)},
            r"found a NumPy object \(numpy\._core\.multiarray\.scalar under 'valid_loss'\).*torch\.save\(model\.state",
            id="numpy-scalar",
        ),
        pytest.param(lambda w: w | {"cmvn": np.zeros(3)}, r"NumPy object \(numpy\.\S+ under 'cmvn'\)", id="array"),
        pytest.param(lambda _: torch.nn.Linear(2, 2), r"found torch\.nn\.modules\.linear\.Linear", id="module"),
    ],
)
def test_what_does_not_fit_is_one_line(folder: Path, good: Weights, spoil, said: str):
    torch.save(spoil(good), folder / "model.pt")
    with pytest.raises(UserError, match=said) as e:
        fsmn_vad.load(folder)
    assert str(e.value).startswith(f"{folder}/model.pt")
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("value", [np.float64(1), np.zeros(2), Path("x")], ids=["scalar", "array", "path"])
def test_what_an_old_or_foreign_pickle_holds_is_named(tmp_path: Path, protocol: int, value: object):
    (tmp_path / "model.pt").write_bytes(pickle.dumps({"best": value}, protocol))
    with pytest.raises(UserError, match=r"model\.pt") as e:
        weights.read(tmp_path / "model.pt")
    assert "\n" not in str(e.value)
    if protocol >= 2:
        assert "under 'best'" in str(e.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param(b"", "is empty", id="empty"),
        pytest.param(b"version https://git-lfs.example/spec/v1\noid sha256:00\n", "Git LFS pointer", id="lfs"),
        pytest.param(b"\n  <HTML><body>no such file", "web page", id="page"),
        pytest.param(b'{"Code": 10010205001, "Message": "no such model"}', "is JSON", id="json"),
        pytest.param(b"\x40\x00\x00\x00\x00\x00\x00\x00" + b'{"a":{"dtype":"F32"}}', "safetensors", id="safetensors"),
        pytest.param(b"PK\x03\x04" + bytes(100), "zip archive is truncated", id="truncated-zip"),
        pytest.param(b"\x80\x02}q", "not a whole PyTorch checkpoint", id="truncated-pickle"),
        pytest.param(bytes(range(256)), "not a whole PyTorch checkpoint", id="noise"),
        pytest.param(b"\x80\x02" + b"(" * 100_000 + b"t.", "not a whole PyTorch checkpoint", id="odd-pickle"),
    ],
)
def test_what_is_no_checkpoint_is_told_apart(tmp_path: Path, content: bytes, said: str):
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(UserError, match=said) as e:
        weights.read(tmp_path / "model.pt")
    assert "\n" not in str(e.value)


def test_every_cut_of_a_checkpoint_is_named(tiny_checkpoint: Path, tmp_path: Path):
    whole = (tiny_checkpoint / "model.pt").read_bytes()
    for size in range(1, len(whole), len(whole) // 50):
        (tmp_path / "model.pt").write_bytes(whole[:size])
        with pytest.raises(UserError, match=r"model\.pt is not a whole PyTorch checkpoint"):
            weights.read(tmp_path / "model.pt")
