"""The Triton server of the wheel nvidia-pytriton, which runs without a GPU and has the Python backend alone."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from stages.core import layout
from stages.core.errors import UserError
from stages.core.files import new_folder

HOME = layout.CACHE / "triton"  # where `make .venv/triton` installs the wheel, with the NumPy that it was built for
STUB = "triton_python_backend_stub"


@dataclass(frozen=True)
class Ports:
    """Where the server listens."""

    http: int
    grpc: int
    metrics: int
    address: str = "127.0.0.1"


def command(repository: Path, home: Path, ports: Ports) -> list[str]:
    """Return the command that serves a model repository; home: the folder with the wheel, in which it is to be run.

    The backend was built for NumPy 1, and writes nothing from arrays of NumPy 2. It looks into the working folder
    first, and so finds the NumPy that lies there.

    Raises:
        UserError: the wheel is not installed there, or has no backend for this Python.
    """
    triton = home / "pytriton" / "tritonserver"
    if not (triton / "bin" / "tritonserver").is_file():
        raise UserError(f"{home} has no Triton; `make .venv/extra-serve` installs it")
    listening = {
        "http-address": ports.address,
        "grpc-address": ports.address,
        "metrics-address": ports.address,
        "http-port": str(ports.http),
        "grpc-port": str(ports.grpc),
        "metrics-port": str(ports.metrics),
    }
    return [
        str((triton / "bin" / "tritonserver").resolve()),
        f"--model-repository={repository.resolve()}",
        f"--backend-directory={_backends(triton, home)}",
        "--allow-gpu-metrics=false",
        "--disable-auto-complete-config",
        *(f"--{option}={value}" for option, value in listening.items()),
    ]


def environment(home: Path) -> dict[str, str]:
    """Return the environment in which the server finds its libraries and this Python."""
    return os.environ | {
        "LD_LIBRARY_PATH": str((home / "nvidia_pytriton.libs").resolve()),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }


def _backends(triton: Path, home: Path) -> Path:
    """Put the Python backend and the stub for this Python where the server looks for both; return that folder."""
    stub = triton / "python_backend_stubs" / f"{sys.version_info.major}.{sys.version_info.minor}" / STUB
    if not stub.is_file():
        raise UserError(f"{triton} has no backend for this Python: found no {stub.relative_to(triton)}")
    backends = home / "backends"
    with new_folder(backends) as folder:  # a server that runs keeps the files that it has open
        shutil.copytree(triton / "backends", folder, dirs_exist_ok=True)
        shutil.copy(stub, folder / "python" / STUB)
    return backends.resolve()
