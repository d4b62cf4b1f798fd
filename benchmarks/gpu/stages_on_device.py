"""Kiln's own stages on the device: accuracy and latency of the target `cuda_fp16`, as the report shows them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from benchmarks.gpu.networks import Device
from benchmarks.gpu.subjects import Subject
from stages.core import layout
from stages.core.errors import UserError
from stages.core.files import read_json
from stages.core.speedups import describe_speedup
from stages.core.statistics import describe_drift

TARGET = "cuda_fp16"
RUNTIME = "onnxruntime_cuda"
Row = dict[str, Any]


def evaluate(subject: Subject, _: Device) -> Iterator[Row]:
    """Run the stage `evaluate`, and return the drift of every metric."""
    found = _run("evaluate", subject.name, "accuracy.json")
    drifts = {name: describe_drift(metric) for name, metric in found["metrics"].items()}
    counts = {key: found[key] for key in ("headline", "recordings", "not_finite")}
    drift = {"headline_drift": drifts[found["headline"]], "drifts": drifts}
    yield {"runtime": RUNTIME, "sha256": subject.digest, **counts, **drift}


def benchmark(subject: Subject, _: Device) -> Iterator[Row]:
    """Run the stage `benchmark`: with copies to the device and back, against the plain fp32 export on the CPU."""
    for case, measured in _run("benchmark", subject.name, "latency.json")["cases"].items():
        times = {"cpu_ms": measured["baseline_p50_ms"], "ms": measured["p50_ms"], "speedup": describe_speedup(measured)}
        yield {"runtime": RUNTIME, "sha256": subject.digest, "case": case, **times}


def _run(stage: str, model: str, file: str) -> dict[str, Any]:
    """Run a stage in a process of its own and return what it wrote.

    Raises:
        UserError: it failed, or found that this machine cannot run the target.
    """
    command = [sys.executable, "-m", f"stages.{stage}", f"{model}-{TARGET}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"stage {stage}: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    found: dict[str, Any] = read_json(layout.measurements(TARGET, model) / file)
    if found["unavailable"]:
        raise UserError(f"stage {stage}: {found['unavailable']}")
    return found
