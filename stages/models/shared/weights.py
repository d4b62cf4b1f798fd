"""The file of weights as FunASR loads it, and what is no such file told apart."""

from __future__ import annotations

import pickle
import pickletools
import re
import warnings
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.core.errors import UserError, first_line

if TYPE_CHECKING:
    import torch

NAMES = ("model.pt", "campplus_cn_common.bin")  # of the file: the second is the hub's CAM++'s
WRAPPERS = ("state_dict", "model_state_dict", "model")  # in FunASR's order
SHOWN = 10
HEAD = 512
SAVE = 'torch.save(model.state_dict(), "model.pt")'


def find(checkpoint: Path) -> Path:
    """Find the file of weights in a checkpoint's folder; where there is none, return what it is usually called."""
    return next((checkpoint / name for name in NAMES if (checkpoint / name).is_file()), checkpoint / NAMES[0])


def refuse_stand_in(path: Path) -> None:
    """Refuse a file that stands for another one, as a download may leave it.

    Raises:
        UserError: it is empty, a Git LFS pointer or a web page.
    """
    with path.open("rb") as f:
        head = f.read(HEAD)
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not head:
        raise UserError(f"{path} is empty")
    if head.startswith(b"version https://git-lfs"):
        raise UserError(f"{path} is a Git LFS pointer, not the file it points to; `git lfs pull` gets that")
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<body")):
        raise UserError(f"{path} is a web page, as a hub sends for an error or a login; download the file again")


def read(path: Path) -> dict[str, Any]:
    """Read a state dict without running any code in it; what a trainer wraps around it is taken off.

    Values are tensors, or what FunASR leaves where it is, such as the dictionary `_ema`.

    Raises:
        UserError: the file is missing, is something else, truncated, holds code, or is not a mapping of names.
    """
    import torch

    if not path.is_file():
        raise UserError(f"{path} is not there")
    refuse_stand_in(path)
    _refuse_other_kinds(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch about pickle protocols
            # Mapped, not read: a tensor costs memory once it is used. Files from before torch 1.6 cannot be.
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as e:
        raise UserError(_why_refused(path, str(e))) from e
    except Exception as e:  # a damaged pickle raises whatever its instructions stumble over
        raise UserError(f"{path} is not a whole PyTorch checkpoint: {first_line(e)}") from e
    for wrapper in WRAPPERS:
        if isinstance(found, dict) and isinstance(found.get(wrapper), dict):
            found = found[wrapper]
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise UserError(
            f"{path}: found {type(found).__name__}, wanted a mapping of names to tensors; {SAVE} writes one"
        )
    return dict(found)


def _refuse_other_kinds(path: Path) -> None:
    with path.open("rb") as f:
        head = f.read(HEAD)
    if head.lstrip().startswith((b"{", b"[")):
        raise UserError(f"{path} is JSON, as a hub sends for an error, not a checkpoint: {head[:80]!r}")
    if head.startswith(b"PK") and not zipfile.is_zipfile(path):
        raise UserError(f"{path} is not a whole PyTorch checkpoint: its zip archive is truncated; download it again")
    if head[8:9] == b"{":
        raise UserError(f"{path} is a safetensors file, wanted a PyTorch checkpoint; {SAVE} writes one")


def _why_refused(path: Path, said: str) -> str:
    """Return what in a pickle torch refuses to make, and which entry of the dictionary holds it."""
    made = list(_made(path))
    others = (name for _, name in made if not name.startswith(("torch.", "collections.")))
    name = match[1] if (match := re.search(r"GLOBAL (\S+)", said)) else next(others, None)
    if name is None:
        return f"{path} is not a whole PyTorch checkpoint, or holds more than tensors: a checkpoint must not run code"
    entry = next((entry for entry, what in made if what == name and entry), None)
    where = f"{name} under {entry!r}" if entry else name
    if name.split(".")[0] == "numpy":
        return (
            f"{path}: found a NumPy object ({where}) and was not loaded: wanted tensors only; where you trust the "
            f"file, save its weights alone: {SAVE}"
        )
    return (
        f"{path}: found {where}, wanted tensors only: a checkpoint must not run code; {SAVE} writes the weights alone"
    )


def _made(path: Path) -> Iterator[tuple[str, str]]:
    """Give every object that a pickle has made by name, after the last text before it: its key in a dictionary.

    The instructions are read, none is run.
    """
    texts: list[str] = [""]
    try:
        for operation, argument, _ in pickletools.genops(_pickle(path)):
            if operation.name == "GLOBAL":
                yield texts[-1], str(argument).replace(" ", ".")
            elif operation.name == "STACK_GLOBAL" and len(texts) > 2:
                yield texts[-3], ".".join(texts[-2:])
            elif isinstance(argument, str):
                texts.append(argument)
    except (ValueError, KeyError, OSError, zipfile.BadZipFile):
        return


def _pickle(path: Path) -> bytes:
    if not zipfile.is_zipfile(path):
        return path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        return archive.read(name)


def scopes(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the pairs of prefixes, in the file and in the network, that FunASR's loader tries; the last one wins.

    The hub's emotion2vec has `scope_map: [d2v_model., none, proj., proj.]`; `module.` is what DataParallel adds.
    """
    said = config.get("scope_map") or []
    names = said.split(",") if isinstance(said, str) else said
    plain = ["" if name.lower() == "none" else name for name in [*names, "module.", "none"]]
    return list(zip(plain[::2], plain[1::2], strict=True))


def origins(wanted: Collection[str], found: Collection[str], pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Return the name in the file of each of the network's weights that it has, as FunASR's loader looks for it."""
    table = {}
    for name in wanted:
        origin = name
        for theirs, ours in pairs:
            if name.startswith(ours) and theirs + name.removeprefix(ours) in found:
                origin = theirs + name.removeprefix(ours)
        if origin in found:
            table[name] = origin
    return table


def fill(model: torch.nn.Module, weights: Mapping[str, Any], pairs: Sequence[tuple[str, str]], path: Path) -> None:
    """Make weights of a checkpoint the model's own, not copied where they have its dtypes; others stay unused.

    Raises:
        UserError: some are missing, of another shape or kind, or not finite; lists them.
    """
    wanted = model.state_dict()
    table = origins(wanted.keys(), weights.keys(), pairs)
    if not table:
        raise UserError(
            f"{path}: the weights do not fit config.yaml: found none of the {len(wanted)} that the network has, "
            f"such as {_listed(wanted)}; the file has {_listed(weights)}"
        )
    missing = [name for name in wanted if name not in table]
    kinds = [f"{o} ({k})" for n, o in table.items() if (k := _describe_misfit(weights[o], wanted[n]))]
    shapes = (
        []
        if kinds
        else [
            f"{o} (found {list(weights[o].shape)}, wanted {list(wanted[n].shape)})"
            for n, o in table.items()
            if weights[o].shape != wanted[n].shape
        ]
    )
    wrong = {"missing": missing, "of another kind": kinds, "of another shape": shapes}
    said = "; ".join(f"{len(names)} {what}: {_listed(names)}" for what, names in wrong.items() if names)
    if said:
        raise UserError(f"{path}: the weights do not fit config.yaml: {said}")
    converted = {name: weights[origin].to(wanted[name].dtype) for name, origin in table.items()}
    broken = [table[name] for name, t in converted.items() if t.is_floating_point() and not t.isfinite().all()]
    if broken:
        raise UserError(f"{path}: found NaN or infinity in {len(broken)} weights: {_listed(broken)}")
    model.load_state_dict(converted, assign=True)


def _describe_misfit(found: Any, wanted: torch.Tensor) -> str | None:
    """Return what a weight is, where it cannot become a plain tensor of the wanted kind of number."""
    import torch

    if not isinstance(found, torch.Tensor):
        return type(found).__name__
    if found.layout != torch.strided or found.is_quantized or found.device.type != "cpu":
        return f"{found.layout} {found.dtype} on {found.device}, wanted plain numbers"
    right = found.is_floating_point() if wanted.is_floating_point() else not found.is_floating_point()
    if right and not found.is_complex() and found.dtype != torch.bool:
        return None
    return f"{found.dtype}, wanted {'floating point' if wanted.is_floating_point() else 'whole numbers'}"


def _listed(names: Collection[str]) -> str:
    shown = ", ".join(str(name)[:100] for name in list(names)[:SHOWN])
    return f"{shown}, ..." if len(names) > SHOWN else shown or "nothing"
