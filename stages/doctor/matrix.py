"""The compatibility matrix: matrix.yaml, typed, and as Markdown with what pyproject.toml and the lock say."""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import field_validator

from stages.commands import PROJECT
from stages.core.files import read_lines
from stages.core.params.section import Section
from stages.environment import LIBRARIES

FILE = Path(__file__).with_suffix(".yaml")
LOCK = PROJECT.parent / "requirements.txt"
LOCKED = re.compile(r"^([\w.-]+)==([^\s;\\]+)")


class Loads(Section):
    """The newest versions that a runtime loads."""

    opset: int
    ir: int


class Speedups(Section):
    """How much faster than fp32 INT8 is, by what the processor has."""

    vnni: float
    avx2: float


class Memory(Section):
    """Of one process: GB at least, and times the checkpoint."""

    process: float
    per_checkpoint: float


class Disk(Section):
    """GB of data sets and downloads, and times the checkpoint."""

    data: float
    per_checkpoint: float


class Matrix(Section):
    """All of matrix.yaml."""

    onnxruntime: dict[str, Loads]
    cuda_drivers: dict[int, str]
    int8_speedup: Speedups
    memory: Memory
    disk: Disk

    @field_validator("onnxruntime")
    @classmethod
    def _sort_versions(cls, value: dict[str, Loads]) -> dict[str, Loads]:
        return dict(sorted(value.items(), key=lambda item: version_key(item[0])))

    def loads(self, onnxruntime: str) -> Loads | None:
        """Return what a version of ONNX Runtime surely loads: the newest known one that is not newer does no more."""
        known = [loads for name, loads in self.onnxruntime.items() if version_key(name) <= version_key(onnxruntime)]
        return known[-1] if known else None


@functools.cache
def load() -> Matrix:
    """Read matrix.yaml."""
    return Matrix.model_validate(yaml.safe_load(FILE.read_text(encoding="utf-8")))


def version_key(text: str) -> tuple[int, ...]:
    """Return the numbers of a version, for comparison; a suffix such as `+cu130` or `rc1` counts for nothing."""
    found = re.match(r"\d+(\.\d+)*", text)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def pythons() -> str:
    """Return the Pythons that pyproject.toml takes, such as `>=3.11,<3.14`."""
    project: dict[str, Any] = tomllib.loads(PROJECT.read_text(encoding="utf-8"))
    return str(project["project"]["requires-python"])


def locked() -> dict[str, set[str]]:
    """Return the locked versions of each library: some have another one on a newer Python."""
    found: dict[str, set[str]] = {}
    for line in read_lines(LOCK):
        if match := LOCKED.match(line):
            found.setdefault(match[1], set()).add(match[2])
    return found


def markdown() -> str:
    """Return the matrix as tables."""
    return "\n".join(_lines(load())) + "\n"


def _lines(matrix: Matrix) -> Iterator[str]:
    lock = locked()
    yield from ("| what | locked version |", "| --- | --- |", f"| Python | {pythons()} |")
    yield from (f"| {name} | {' or '.join(sorted(lock[name]))} |" for name in LIBRARIES if name in lock)
    yield from ("", "| ONNX Runtime | newest opset that it loads | newest IR version |", "| --- | ---: | ---: |")
    yield from (f"| {name} | {loads.opset} | {loads.ir} |" for name, loads in matrix.onnxruntime.items())
    yield from ("", "| CUDA | oldest driver |", "| --- | --- |")
    yield from (f"| {name} | {driver} |" for name, driver in matrix.cuda_drivers.items())
    yield from ("", "| processor | INT8 over fp32, Paraformer-large on one thread |", "| --- | ---: |")
    yield f"| AVX-VNNI, AVX512-VNNI or AMX | {matrix.int8_speedup.vnni:.2f}x |"
    yield f"| AVX2 without these | {matrix.int8_speedup.avx2:.2f}x |"
    yield from ("", "| of a build | at least | for a checkpoint of 1 GB |", "| --- | ---: | ---: |")
    memory, disk = matrix.memory, matrix.disk
    yield f"| memory of one process, GB | {memory.process:g} | {memory.per_checkpoint:g} |"
    yield f"| disk for artifacts and caches, GB | {disk.data:g} | {disk.per_checkpoint:g} |"
