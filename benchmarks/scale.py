"""A checkpoint of the catalogue at full size, with random weights, through all stages: what it costs.

    python -m benchmarks.scale seaco_paraformer_large --targets cpu_fp32_opt,cpu_int8

Prints seconds, peak memory and what is left on disk of each step, the latency of each build and its share of the floor
(benchmarks/floor.py). Random weights say nothing of accuracy, so there are few recordings; pruned targets are pruned
once and not distilled, which is as long as one wants. A step runs as it does under `dvc repro`: a process of its own.
For Paraformer-large also the same weights through FunASR's own export modules and the TorchScript exporter, which
FunASR's `export` was written for, and onnxsim's command line with its defaults.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from stages.commands import catalogue
from stages.core import layout, params, plan
from stages.core.errors import did_you_mean
from stages.core.speedups import describe_speedup
from zoo import alone

ROOT = Path(__file__).parents[1]
MIB = 2**20
TARGETS = "cpu_fp32,cpu_fp32_opt,cpu_int8"
ITEMS = {"calibration": 24, "tuning": 4, "evaluation": 7}
ONCE = {"prune": {"distill_steps": 0, "variations": 0, "allocation": "uniform", "criterion": "magnitude"}}
WITH_PEERS = "paraformer_large"


class Step(NamedTuple):
    """What one step took: seconds, peak resident MiB over it and what it waited for, MiB that it added to artifacts."""

    name: str
    seconds: float
    peak: float
    disk: float


def measure_step(name: str, command: Sequence[str], folder: Path) -> Step:
    """Run a command in `folder`, print what it took and return that.

    Raises:
        SystemExit: it failed; what it wrote to standard error was shown.
    """
    before, start = stored_mib(folder / layout.ARTIFACTS), time.perf_counter()
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)}: ended with status {os.waitstatus_to_exitcode(status)}")
    seconds, added = time.perf_counter() - start, stored_mib(folder / layout.ARTIFACTS) - before
    step = Step(name, seconds, usage.ru_maxrss / 1024, added)
    print(f"{step.name}: {step.seconds:.1f} s, {step.peak:.0f} MiB, {step.disk:+.0f} MiB on disk", flush=True)
    return step


def stored_mib(folder: Path) -> float:
    """Return the MiB of all files below `folder`."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / MIB


def build(model: str, targets: str, folder: Path) -> Iterator[Step]:
    """Make the replica in `folder`, which becomes a repository of its own, and run every step up to the release."""
    python = (sys.executable, "-m")
    replica = folder / "replica"
    if not replica.exists():
        yield measure_step("replica", [*python, "zoo.replicas", model, str(replica)], folder)
    with alone.settings(ROOT / "params.yaml", folder / params.PARAMS) as settings:
        alone.hurry(settings, ITEMS, ONCE)
        alone.without(settings, model)
        entry = catalogue.models()[model].model_dump(mode="json")
        settings["models"][model] = entry | {"sources": [{"kind": "folder", "path": str(replica)}]}
    yield measure_step("pin", [*python, "stages", "pin", model], folder)
    yield measure_step("add", [*python, "stages", "add", model, "--targets", targets], folder)
    with alone.settings(folder / params.PARAMS, folder / params.PARAMS) as settings:
        alone.leave_only(settings, model)
    yield measure_step("plan", [*python, "stages", "plan"], folder)
    p = params.load(folder / params.PARAMS)
    for stage, key in alone.steps(p, model):
        keys = [key] if key else []
        short = [key.removeprefix(f"{model}-") for key in keys if key != model]
        yield measure_step(" ".join([stage, *short]), [*python, f"stages.{stage}", *keys], folder)
    yield measure_step("package", [*python, "benchmarks.scale", "--package"], folder)
    if model == WITH_PEERS:
        yield from peers(replica, folder)


def peers(replica: Path, folder: Path) -> Iterator[Step]:
    """Run the same weights through FunASR's export and onnxsim's command line."""
    own, simplified = folder / "funasr.onnx", folder / "onnxsim.onnx"
    export = [sys.executable, "-m", "benchmarks.scale", "--funasr", str(replica), str(own)]
    yield measure_step("FunASR's export, TorchScript", export, folder)
    onnxsim = Path(sys.executable).parent / "onnxsim"
    yield measure_step("onnxsim's command line", [str(onnxsim), str(own), str(simplified)], folder)


def funasr_export(checkpoint: Path, place: Path) -> None:
    """Run FunASR's own export modules with the TorchScript exporter; its `export` itself fails with this torch."""
    import torch

    from stages.models.paraformer import network
    from stages.models.shared import checkpoint as files

    model, config = network.load(checkpoint), network.read_config(checkpoint)
    with files.importing_funasr():
        from funasr.models.paraformer.export_meta import export_rebuild_model
    kinds = {part: config[part] for part in network.SECTIONS}
    rebuilt = export_rebuild_model(model, **kinds, max_seq_len=512, onnx=True, device="cpu")
    torch.onnx.export(
        rebuilt,
        rebuilt.export_dummy_inputs(),
        place,
        dynamo=False,
        opset_version=14,
        do_constant_folding=True,
        input_names=rebuilt.export_input_names(),
        output_names=rebuilt.export_output_names(),
        dynamic_axes=rebuilt.export_dynamic_axes(),
    )


def cost(steps: Sequence[Step], checkpoint: float) -> Table:
    """Return the table of steps and their sum, with sizes as multiples of the checkpoint's MiB too."""
    table = Table("step", "seconds", "peak MiB", "peak / checkpoint", "disk MiB", "disk / checkpoint")
    total = Step("all", sum(s.seconds for s in steps), max(s.peak for s in steps), sum(s.disk for s in steps))
    for step in [*steps, total]:
        sizes = [text for mib in (step.peak, step.disk) for text in (f"{mib:.0f}", f"{mib / checkpoint:.1f}x")]
        table.add_row(step.name, f"{step.seconds:.1f}", *sizes)
    return table


def latency(folder: Path) -> Table:
    """Return the table of every latency case of every build."""
    table = Table("build", "case", "fp32 p50 ms", "p50 ms", "speedup", "MiB")
    for path in sorted((folder / "reports" / "measurements").glob("*/*/latency.json")):
        record = json.loads(path.read_text())
        for case, found in record["cases"].items():
            times = (f"{found['baseline_p50_ms']:.0f}", f"{found['p50_ms']:.0f}", describe_speedup(found))
            table.add_row(path.parts[-3], case, *times, f"{record['bytes']['value'] / MIB:.0f}")
    return table


def run(model: str, targets: str, folder: Path) -> None:
    """Take one model through all steps, and print its latencies and what each step cost."""
    steps = list(build(model, targets, folder.resolve()))
    checkpoint = (folder / "replica" / "model.pt").stat().st_size / MIB
    Console().print(latency(folder))
    Console().print(f"{model}: {checkpoint:.0f} MiB of weights", cost(steps, checkpoint))
    builds = plan.derive(params.load(folder / params.PARAMS)).builds.values()
    artifacts = {str(folder / layout.ARTIFACTS / build.artifact) for build in builds}
    subprocess.run([sys.executable, "-m", "benchmarks.floor", *sorted(artifacts)], cwd=ROOT, check=True)


def main(argv: Sequence[str]) -> None:
    """Print the names of the catalogue, or take one of its models through all stages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="a name of the catalogue; without one, the names are printed")
    parser.add_argument("--targets", default=TARGETS, help=f"as `add` takes them; {TARGETS} by default")
    parser.add_argument("--folder", type=Path, help="keep the work here; a temporary folder by default")
    parser.add_argument("--package", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--funasr", nargs=2, type=Path, metavar=("CHECKPOINT", "PLACE"), help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    known = catalogue.models()
    if options.package:
        alone.release(params.load())
    elif options.funasr:
        funasr_export(*options.funasr)
    elif not options.model:
        print("make scale MODEL=one of", *known, sep="\n  ")
    elif options.model not in known:
        raise SystemExit(f"the catalogue has no model {options.model!r}; {did_you_mean(options.model, known)}")
    else:
        with tempfile.TemporaryDirectory() as scratch:
            folder = options.folder or Path(scratch)
            folder.mkdir(exist_ok=True)
            run(options.model, options.targets, folder)


if __name__ == "__main__":
    main(sys.argv[1:])
