"""A repository in which nothing was built, on a machine that has all it needs; tests plant one fault each."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stages.core import machine
from stages.doctor import matrix
from tests import workspace

Plant = Callable[[str, str], Path]
VNNI = "model name : A CPU\nflags : sse avx2 avx512_vnni\n"
ON_CPU = "get_available_providers = lambda: ['CPUExecutionProvider']\n"
RTX = "import enum\n__version__ = '1.7'\nComputeCapability = enum.Enum('C', 'CURRENT SM75 SM86 SM89 SM120')\n"


@pytest.fixture
def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Plant]:
    """Write a file below a folder in which Python looks first for modules and distributions, here and in children.

    Children import what is planted. This process only finds it: families need the real libraries, and so does whoever
    tests after this.
    """
    import onnxruntime  # noqa: F401  so that nobody imports the planted one here
    import torch  # noqa: F401

    place = tmp_path / "planted"
    place.mkdir()
    monkeypatch.syspath_prepend(str(place))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(place), str(workspace.ROOT)]))

    def write(name: str, text: str) -> Path:
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    yield write
    imported = {name: getattr(module, "__file__", None) or "" for name, module in sys.modules.items()}
    assert [name for name, file in imported.items() if file.startswith(str(place))] == []


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Put a program on the PATH that prints a text."""
    place = tmp_path / "bin"
    place.mkdir()
    monkeypatch.setenv("PATH", str(place), prepend=os.pathsep)

    def write(name: str, said: str) -> None:
        (place / name).write_text(f"#!/bin/sh\ncat <<'END'\n{said}\nEND\n")
        (place / name).chmod(0o755)

    return write


@pytest.fixture
def processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Say which processor this is, as /proc/cpuinfo does."""
    place = tmp_path / "cpuinfo"
    monkeypatch.setattr(machine, "CPU_INFO", place)

    def write(text: str) -> None:
        place.write_text(text)

    return write


@pytest.fixture
def repository(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    plant: Plant,
    program: Callable[[str, str], None],
    processor: Callable[[str], None],
) -> Path:
    """The repository, and libraries that answer at once."""
    place = tmp_path / "repository"
    place.mkdir()
    workspace.repository(place)
    for name in ("pins", "zoo"):
        shutil.copytree(workspace.ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__", "*.pt"))
    for config in (place / "zoo").rglob("config.yaml"):
        config.with_name("model.pt").touch()  # which nothing here reads
    monkeypatch.chdir(place)
    onnxruntime, torch = (max(matrix.locked()[name]) for name in ("onnxruntime", "torch"))
    plant(
        "onnxruntime.py", f"__version__ = '{onnxruntime}'\nget_available_providers = lambda: ['CPUExecutionProvider']\n"
    )
    plant("torch.py", fake_torch(torch, "13.0", ["sm_75", "sm_86", "sm_120"]))
    plant("tensorrt_rtx_bindings.py", RTX)
    program("nvidia-smi", "")
    processor(VNNI)
    return place


def fake_torch(version: str, cuda: str | None, kernels: list[str]) -> str:
    """A module that answers what is asked of torch."""
    said = f"__version__ = {version!r}\nclass version: cuda = {cuda!r}\n"
    return f"{said}class cuda: get_arch_list = staticmethod(lambda: {kernels!r})\n"
