"""Everything that needs a CUDA device, in one go: `python -m benchmarks.gpu`, or `make gpu`.

Each part of each model runs in a process of its own, so that one that fails, dies or hangs is a line of the result and
not its end. What takes no times runs first and side by side; what is timed runs alone. Nothing is fetched.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.gpu import networks, parts, subjects
from benchmarks.gpu.record import FAILED, Record, facts
from stages.core import params
from stages.core.errors import first_line
from stages.core.parallel import cores
from stages.core.params import Params
from stages.runtimes import onnxruntime_cuda

RESULTS = Path(__file__).parent
PART_SECONDS = 100  # for one part of one model
Row = dict[str, Any]


class Job(NamedTuple):
    """A part of one model."""

    part: str
    model: str


def waves(p: Params) -> Iterator[tuple[int, list[Job]]]:
    """Yield the jobs, the most telling first, in groups with how many of each may run at the same time."""
    small, large = [s.name for s in subjects.miniatures(p)], [s.name for s in subjects.large()]
    yield cores(), [*_jobs("parity", small), *_jobs("fill", large), *_jobs("accuracy", small)]
    yield 3, _jobs("parity", large)
    yield 1, _jobs("speed", [*large, *small])
    yield 3, _jobs("placement", [*large, *small])
    yield 1, [*_jobs("torch", large), *_jobs("engines", small), *_jobs("latency", small)]


def _jobs(part: str, models: Iterable[str]) -> list[Job]:
    return [Job(part, model) for model in models]


def run(record: Record, device: str, ends: float, wanted: Collection[str]) -> None:
    """Run the jobs of the wanted parts until the time is up, and record each as it ends; ends: by `time.monotonic`."""
    for workers, jobs in waves(params.load()):
        with ThreadPoolExecutor(workers) as pool:
            futures = {pool.submit(run_job, job, device, ends): job for job in jobs if job.part in wanted}
            for future in as_completed(futures):
                rows, job = future.result(), futures[future]
                record.add(job.part, job.model, rows)
                print(f"{job.part} {job.model}: {next((row[FAILED] for row in rows if FAILED in row), 'done')}")


def run_job(job: Job, device: str, ends: float) -> list[Row]:
    """Run one job in a process of its own; return its rows and, if it did not end well, one that says why."""
    seconds = min(PART_SECONDS, ends - time.monotonic())
    if seconds <= 0:
        return [{"model": job.model, FAILED: "the time was up"}]
    with tempfile.NamedTemporaryFile("r", suffix=".jsonl") as written:
        why = _explain_failure([*job, "--on", device, "--rows", written.name], seconds)
        rows = [{"model": job.model} | json.loads(line) for line in written]
    return [*rows, {"model": job.model, FAILED: why}] if why else rows


def _explain_failure(arguments: Sequence[str], seconds: float) -> str | None:
    """Run this module with arguments, and return why it did not end well, or None."""
    command = [sys.executable, "-m", "benchmarks.gpu", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": str(max(1, cores() // 4))}
    try:
        done = subprocess.run(
            command, timeout=seconds, capture_output=True, text=True, env=environment, errors="replace", check=False
        )
    except subprocess.TimeoutExpired:
        return f"stopped after {seconds:.0f} s"
    if done.returncode < 0:
        return f"died of signal {-done.returncode}"
    return (done.stderr.strip().splitlines() or ["no message"])[-1] if done.returncode else None


def measure(part: str, model: str, device: str, place: Path) -> None:
    """Write the rows of one part of one model to `place`, one a line, each as soon as it is known."""
    onnxruntime_cuda.import_library()  # before anybody imports the CPU's
    subject = subjects.find(params.load(), model)
    with place.open("a", encoding="utf-8") as file:
        for row in parts.PARTS[part](subject, networks.DEVICES[device]):
            print(json.dumps(row), file=file, flush=True)


def main(argv: Sequence[str]) -> None:
    """Measure everything, or one part of one model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=parts.PARTS, help="of one MODEL; without it, everything")
    parser.add_argument("model", nargs="?")
    parser.add_argument("--on", choices=networks.DEVICES, default="cuda", help="cpu: a rehearsal without a device")
    parser.add_argument("--seconds", type=float, default=470, help="after which no part is begun")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder of the result")
    parser.add_argument("--parts", nargs="+", choices=parts.PARTS, default=list(parts.PARTS), help="all by default")
    parser.add_argument("--rows", type=Path, default=Path("/dev/stdout"), help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.part:
        try:
            measure(options.part, options.model, options.on, options.rows)
        except Exception as e:  # noqa: BLE001  of any library here: it becomes a line of the result
            sys.exit(f"{type(e).__name__}: {first_line(e)}")
        return
    run(Record(options.results, facts()), options.on, time.monotonic() + options.seconds, options.parts)


if __name__ == "__main__":
    main(sys.argv[1:])
