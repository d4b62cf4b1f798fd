"""Serve releases with Triton over HTTP and gRPC on this machine, each model in its pipeline and each graph alone.

The metrics are at /metrics of a third port. `--write` only writes the model repository, for a Triton elsewhere that has
the backends of ONNX Runtime or TensorRT, and Kiln installed in the Python of its Python backend, which reads no
PYTHONPATH.
"""

from __future__ import annotations

import importlib.util
import os
from argparse import ArgumentParser, Namespace
from pathlib import Path

from stages.core import layout
from stages.core.errors import UserError, did_you_mean

EXAMPLE = "kiln serve paraformer-cpu_int8 fsmn_vad-cpu_int8"
HTTP = 8000


def add_arguments(parser: ArgumentParser) -> None:
    """Take builds, and where to listen or to write."""
    parser.add_argument("builds", nargs="+", metavar="BUILD", help="of artifacts/release, one of a model")
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="write the repository there, and start nothing")
    parser.add_argument("--address", default="127.0.0.1", help="where to listen; default: %(default)s")
    parser.add_argument("--port", type=int, default=HTTP, help="of HTTP, then gRPC and metrics; default: %(default)s")


def run(arguments: Namespace) -> None:
    """Write the repository, and become the server.

    Raises:
        UserError: a build is not released, or what serves it is not installed.
    """
    from stages.serving import repository, server

    if importlib.util.find_spec("tritonclient") is None:
        raise UserError("serving needs tritonclient, which is not installed; `make .venv/extra-serve` installs it")
    releases = [repository.read_release(_folder(build)) for build in arguments.builds]
    place = arguments.write or layout.CACHE / "triton-repository"
    names = repository.write(releases, place, native=arguments.write is not None)
    print(f"{place}: {', '.join(names)}", flush=True)
    if arguments.write is None:
        ports = server.Ports(arguments.port, arguments.port + 1, arguments.port + 2, arguments.address)
        command = server.command(place, server.HOME, ports)
        environment = server.environment(server.HOME)
        os.chdir(server.HOME)
        os.execve(command[0], command, environment)  # noqa: S606  signals then reach the server


def _folder(build: str) -> Path:
    folder = layout.RELEASE / build
    if not folder.is_dir():
        known = sorted(path.name for path in layout.RELEASE.glob("*"))
        raise UserError(f"no release {build!r} in {layout.RELEASE}; {did_you_mean(build, known)}")
    return folder
