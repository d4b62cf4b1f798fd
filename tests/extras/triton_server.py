"""Release folders to be served, and Triton with a model repository of them."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from stages import models
from stages.core import graphs
from stages.core.files import write_json
from stages.export import export_variant
from stages.release import contents, statement
from stages.runtimes import onnxruntime as here
from stages.serving import server
from tests.workspace import ROOT

FAMILIES = (
    "campplus",
    "ct_transformer",
    "emotion2vec",
    "fsmn_vad",
    "paraformer",
    "paraformer_streaming",
    "seaco_paraformer",
    "sensevoice",
)


def release(family: str, checkpoint: Path, artifact: Path, folder: Path) -> None:
    """Fill a release folder with the plain export of a checkpoint, and with what says that it is one."""
    export_variant(models.load(family), checkpoint, artifact, opset=18, tolerance=1e-4)
    contents.fill(artifact, checkpoint, graphs.digests(artifact), folder, integer=False)
    write_statement(folder, family, "onnxruntime")


def write_statement(folder: Path, model: str, runtime: str) -> None:
    external = {"build": f"{model}-cpu_fp32", "model": {"family": model}, "target": {"runtime": runtime}}
    write_json(folder / statement.FILE, {"predicate": {"buildDefinition": {"externalParameters": external}}})


def artifact(folder: Path) -> Any:
    graph_set = graphs.read(folder)
    return graph_set, here.load(folder, graph_set)


def free_ports() -> server.Ports:
    with ExitStack() as stack:
        free = [stack.enter_context(socket.socket()) for _ in range(3)]
        for one in free:
            one.bind(("127.0.0.1", 0))
        http, grpc, metrics = (one.getsockname()[1] for one in free)
        return server.Ports(http, grpc, metrics)


@contextmanager
def running(place: Path, ports: server.Ports, log: Path, onnxruntime: Path | None = None) -> Iterator[None]:
    """Serve a model repository, ready; onnxruntime: a folder with Triton's backend of it, which the wheel lacks."""
    home = (ROOT / server.HOME).resolve()
    with log.open("wb") as out:
        command, environment = server.command(place, home, ports), server.environment(home)
        if onnxruntime:
            shutil.copytree(onnxruntime, home / "backends" / "onnxruntime")
        process = subprocess.Popen(command, cwd=home, env=environment, stdout=out, stderr=out)
    try:
        _wait_until_ready(process, ports, log)
        yield
    finally:
        process.terminate()
        process.wait(60)


def _wait_until_ready(process: subprocess.Popen[bytes], ports: server.Ports, log: Path) -> None:
    while process.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{ports.http}/v2/health/ready", timeout=5).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    pytest.fail(f"Triton ended with {process.returncode}:\n{log.read_text()[-4000:]}")


def samples(ports: server.Ports) -> dict[str, float]:
    """Every sample at /metrics, by name and labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{ports.metrics}/metrics", timeout=10) as page:
        lines = page.read().decode().splitlines()
    return {key: float(value) for key, _, value in (line.rpartition(" ") for line in lines if not line.startswith("#"))}


def count(ports: server.Ports, name: str, **labels: str) -> float:
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    return sum(
        value
        for key, value in samples(ports).items()
        if key.startswith(f"{name}{{") and all(label in key for label in wanted)
    )
