"""The results: one JSON file and one Markdown file of a device, written again after every part."""

from __future__ import annotations

import math
import platform
import re
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from stages.core.files import read_json, write_json, write_text
from stages.core.machine import cpu, gpu
from stages.report import md_text
from stages.runtimes import onnxruntime_cuda

Row = dict[str, Any]
FAILED = "failed"
MIB = 2**20


def facts() -> dict[str, str]:
    """Describe the machine and what runs on it."""
    return {
        "gpu": gpu(),
        "cpu": cpu(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "onnxruntime": onnxruntime_cuda.import_library().__version__,
        "date": time.strftime("%Y-%m-%d"),
    }


class Record:
    """Rows of every part, and the files that they are in."""

    def __init__(self, folder: Path, machine: Mapping[str, str]) -> None:
        """Go on with the files of a machine in `folder`, named as its first GPU is, or begin them."""
        name = re.sub(r"[^a-z0-9]+", "_", machine["gpu"].split(",")[0].lower()).strip("_")
        self.place = folder / f"{'cpu' if name == 'none' else name}.json"
        self._machine = dict(machine)
        known = read_json(self.place)["parts"] if self.place.is_file() else {}
        self._parts: dict[str, list[Row]] = {part: known.get(part, []) for part in TABLES}

    def add(self, part: str, model: str, rows: Sequence[Row]) -> None:
        """Put rows in the place of those that a part of a model had, and write both files."""
        self._parts[part] = [row for row in self._parts[part] if row["model"] != model] + list(rows)
        write_json(self.place, {"machine": self._machine, "parts": self._parts})
        write_text(self.place.with_suffix(".md"), self._text())

    def _text(self) -> str:
        machine = [f"- {name}: {md_text(value)}" for name, value in self._machine.items()]
        parts = [section(part, rows) for part, rows in self._parts.items() if rows]
        return "\n".join([f"# {md_text(self._machine['gpu'].split(',')[0])}", "", *machine, "", *parts])


def section(part: str, rows: Sequence[Row]) -> str:
    """Return the table of one part, and below it what could not be measured."""
    title, columns = TABLES[part]
    lines = [f"## {title}", ""]
    if found := [row for row in rows if FAILED not in row]:
        lines += [f"| {' | '.join(columns)} |", f"| {' | '.join('---' for _ in columns)} |"]
        lines += [f"| {' | '.join(md_text(cell(row)) for cell in columns.values())} |" for row in found]
    lines += [f"- {md_text(row['model'])}: not measured: {md_text(row[FAILED])}" for row in rows if FAILED in row]
    return "\n".join([*lines, ""])


def _plain(key: str) -> Callable[[Row], str]:
    return lambda row: str(row.get(key, ""))


def _number(key: str, digits: int = 2) -> Callable[[Row], str]:
    return lambda row: f"{row[key]:.{digits}f}" if key in row else ""


def _worst(row: Row) -> str:
    """Name the input on which the difference is largest, or say why there is none."""
    differences: dict[str, float | None] = row.get("differences", {})
    if not differences:
        return str(row.get("why_not", ""))
    largest = {name: math.inf if value is None else value for name, value in differences.items()}
    name = max(largest, key=lambda key: largest[key])
    return f"{_difference(differences[name])} ({name})"


def _difference(value: float | None) -> str:
    return "other shape, or not finite" if value is None else f"{value:.1e}"


def _longest(row: Row) -> str:
    return _difference(row["differences"]["longest"])


TABLES: dict[str, tuple[str, dict[str, Callable[[Row], str]]]] = {
    "fill": ("Weights drawn", {"model": _plain("model"), "seconds": _number("seconds", 1)}),
    "accuracy": (
        "Accuracy of cuda_fp16, by the stage `evaluate`",
        {
            "model": _plain("model"),
            "metric": _plain("headline"),
            "against fp32 torch": _plain("headline_drift"),
            "recordings": _plain("recordings"),
            "not finite": _plain("not_finite"),
        },
    ),
    "parity": (
        "Largest difference from fp32 on the CPU, relative to an output's scale",
        {
            "model": _plain("model"),
            "graph": _plain("graph"),
            "precision": _plain("precision"),
            "worst (input)": _worst,
            "longest input": _longest,
        },
    ),
    "speed": (
        "Latency and throughput of the graphs; inputs and outputs stay on the device",
        {
            "model": _plain("model"),
            "on": _plain("on"),
            "precision": _plain("precision"),
            "case": _plain("case"),
            "batch": _plain("batch"),
            "ms": _number("ms"),
            "audio seconds (or texts) a second": _number("per_second", 0),
            "device MiB": _number("mib", 0),
            "load s": _number("load_s", 1),
        },
    ),
    "torch": (
        "FunASR's networks in torch",
        {
            "model": _plain("model"),
            "precision": _plain("precision"),
            "case": _plain("case"),
            "batch": _plain("batch"),
            "ms": _number("ms"),
            "audio seconds (or texts) a second": _number("per_second", 0),
        },
    ),
    "engines": (
        "Engines of the fp16 graphs",
        {
            "model": _plain("model"),
            "runtime": _plain("runtime"),
            "graph": _plain("graph"),
            "build s": _number("seconds", 1),
            "bytes": _plain("bytes"),
            "worst difference, or why there is none": _worst,
        },
    ),
    "placement": (
        "Where nodes run, and what keeps the host busy",
        {
            "model": _plain("model"),
            "graph": _plain("graph"),
            "precision": _plain("precision"),
            "nodes": _plain("nodes"),
            "on the CPU": _plain("on_cpu"),
            "which": _plain("cpu_operators"),
            "copies": _plain("copies"),
            "host ms": _number("host_ms"),
            "most of it": _plain("slowest"),
        },
    ),
    "latency": (
        "Latency of cuda_fp16 by the stage `benchmark`: with copies to the device and back",
        {
            "model": _plain("model"),
            "case": _plain("case"),
            "CPU fp32 ms": _number("cpu_ms"),
            "ms": _number("ms"),
            "speedup": _plain("speedup"),
        },
    ),
}
