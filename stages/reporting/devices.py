"""What `make gpu` measured of a build on a device, for the page of one that cannot run here. It decides nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from stages.core import layout
from stages.core.errors import UserError
from stages.reporting import results
from stages.reporting.figures import Entries, Entry

VARIANT, GRAPH = "dense", "fp16"  # of which `make gpu` measures the accuracy, the latency and the engines


class Row(BaseModel):
    """What was measured of one model's fp16 graphs; sha256: their digest, as a build's artifact has it."""

    model_config = ConfigDict(frozen=True)

    model: str
    runtime: str
    sha256: str | None = None


class Accuracy(Row):
    """The metric that the report shows first, and of how many recordings."""

    headline: str
    headline_drift: str
    recordings: int


class Latency(Row):
    """One case, against the plain fp32 export on the CPU of that machine."""

    case: str
    cpu_ms: float
    ms: float
    speedup: str


class Engine(Row):
    """The engine of one graph: seconds and bytes, or why it could not be built or run."""

    graph: str | None = None
    seconds: float | None = None
    bytes: int | None = None
    why_not: str | None = None


class Parts(BaseModel):
    """The parts that are of builds; those of graphs are on the device's own page."""

    accuracy: list[Accuracy] = []
    latency: list[Latency] = []
    engines: list[Engine] = []

    @field_validator("*", mode="before")
    @classmethod
    def _measured(cls, rows: Any) -> Any:
        if not isinstance(rows, list):
            return rows
        return [row for row in rows if not (isinstance(row, dict) and "failed" in row)]


class Machine(BaseModel):
    """The device, the processor beside it, and the day."""

    gpu: str
    cpu: str
    date: str


class Record(BaseModel):
    """A file of benchmarks/gpu/, as far as reports show it."""

    machine: Machine
    parts: Parts


class Elsewhere(NamedTuple):
    """What is known of one build from one device; files: whether its graphs there are those here, in words."""

    gpu: str
    cpu: str
    date: str
    record: str
    files: str
    accuracy: list[Accuracy]
    latency: list[Latency]
    engines: list[Engine]

    def describe(self) -> str:
        """Return the accuracy, the first and the last speedup and what became of engines, in one line."""
        ends = self.latency[:: max(1, len(self.latency) - 1)]
        return "; ".join(
            [
                *(f"{row.headline} {row.headline_drift}" for row in self.accuracy),
                *(f"{row.case} {row.speedup}" for row in ends),
                *(f"engine {row.graph}: {row.why_not or f'{row.bytes} bytes'}" for row in self.engines if row.graph),
                *(row.why_not for row in self.engines if row.why_not and not row.graph),
            ]
        )


ByBuild = dict[str, list[Elsewhere]]
"""What is known of each build from devices, by the build's name."""


def read(path: Path) -> Record:
    """Read what `make gpu` wrote of a device.

    Raises:
        UserError: it is not that.
    """
    try:
        return Record.model_validate_json(path.read_bytes())
    except ValidationError as e:
        first = e.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise UserError(f"{path}: {where}: {first['msg']}; restore it with git, or `make gpu` on that device") from e


def collect_elsewhere(entries: Entries) -> ByBuild:
    """Collect, for each build that is unavailable here, what was measured of its model and runtime on devices.

    Raises:
        UserError: a file of benchmarks/gpu/ is not what `make gpu` writes.
    """
    records = {path: read(path) for path in sorted(layout.GPU.glob("*.json"))}
    missing = {name: e for name, e in entries.items() if e["verdict"] == "unavailable"}
    found = {name: list(_collect_devices(entry, records)) for name, entry in missing.items()}
    return {name: devices for name, devices in found.items() if devices}


def _collect_devices(entry: Entry, records: Mapping[Path, Record]) -> Iterator[Elsewhere]:
    if (entry["variant"], entry["graph"]) != (VARIANT, GRAPH):
        return
    for path, record in records.items():
        parts: dict[str, Any] = {
            part: [row for row in rows if (row.model, row.runtime) == (entry["model"], entry["runtime"])]
            for part, rows in record.parts
        }
        if any(parts.values()):
            files = _compare_files(entry["model"], {row.sha256 for rows in parts.values() for row in rows})
            yield Elsewhere(**record.machine.model_dump(), record=str(path), files=files, **parts)


def _compare_files(model: str, there: set[str | None]) -> str:
    """Tell whether digests of a model's graphs are those of the graphs here, as a part of a sentence."""
    folder = layout.graphs(model, VARIANT, GRAPH)
    here = results.artifact(folder)["sha256"] if folder.is_dir() else None
    if None in {here, *there}:
        return "of files that nobody can compare with those here"
    return "of the same ONNX files as here" if there == {here} else "of other files than this build's"
