"""What is said of the machine that something was measured on."""

import os
import platform
import subprocess
from pathlib import Path

import pytest

from stages.core import machine

H200 = "NVIDIA H200, 9.0, 580.65.06"


def test_a_machine_is_its_processor_and_gpu_and_not_the_name_of_a_host(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(platform, "node", lambda: "build-7.internal")
    assert machine.name() == f"{machine.cpu()}; GPU: {machine.gpu()}"
    assert "build-7" not in machine.name()


def nvidia_smi(folder: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """Put a driver's program on the PATH."""
    (folder / "nvidia-smi").write_text(f"#!/bin/sh\n{body}\n")
    (folder / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)


def test_a_driver_that_does_not_work_says_why_there_is_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    nvidia_smi(tmp_path, monkeypatch, "echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18")
    said = "nvidia-smi says: Failed to initialize NVML: Driver/library version mismatch"
    assert (machine.gpu(), machine.why_no_gpu()) == ("none", f"no CUDA device: {said}")


def test_a_driver_that_hangs_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def hang(*_: object, **__: object) -> None:
        raise subprocess.TimeoutExpired("nvidia-smi", machine.SECONDS)

    nvidia_smi(tmp_path, monkeypatch, "")
    monkeypatch.setattr(subprocess, "run", hang)
    assert machine.why_no_gpu() == "no CUDA device: nvidia-smi gave no answer in 20 s"


@pytest.mark.parametrize(("hidden", "can_use"), [("", False), ("-1", False), ("0", True), ("1,0", True), (None, True)])
def test_a_gpu_that_is_hidden_cannot_be_used(
    hidden: str | None,
    can_use: bool,  # noqa: FBT001
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    nvidia_smi(tmp_path, monkeypatch, f"echo '{H200}'")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if hidden is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    why = None if can_use else "no CUDA device: CUDA_VISIBLE_DEVICES hides all"
    assert (machine.gpu(), machine.why_no_gpu(), len(machine.gpus())) == (H200, why, int(can_use))
