"""Checkpoints of the catalogue at full size, with random weights, through all stages: what they cost and how fast.

    python -m benchmarks.scale seaco_paraformer_large --targets cpu_fp32_opt,cpu_int8

Without a name, one of each kind after the other. Prints as Markdown the seconds, peak memory and what is left on disk
of each step, the speedup of each build, in a batch of unequal lengths too, and its share of the floor
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

from benchmarks import scale_tables
from benchmarks.gpu import networks
from benchmarks.scale_tables import Record, Row, Speed, Step
from stages.commands import catalogue
from stages.core import graphs, layout, machine, params, parity, plan
from stages.core.errors import did_you_mean
from stages.core.files import write_json
from stages.core.graphs import Case
from stages.core.plan import Build
from stages.models.shared import weights
from zoo import alone

ROOT = Path(__file__).parents[1]
MIB = 2**20
MODELS = (
    "paraformer_large",
    "paraformer_large_online",
    "seaco_paraformer_large",
    "sensevoice_small",
    "emotion2vec_plus_large",
    "punc_ct_transformer",
)
TARGETS = ",".join(scale_tables.BUILDS)
ITEMS = {"calibration": 24, "tuning": 12, "evaluation": 7}
ONCE = {"prune": {"distill_steps": 0, "variations": 0, "allocation": "uniform", "criterion": "magnitude"}}
WITH_PEERS = "paraformer_large"
BATCH = 8


def measure_step(name: str, command: Sequence[str], folder: Path) -> Step:
    """Run a command in `folder`, print what it took and return that.

    Raises:
        SystemExit: it failed; what it wrote to standard error was shown.
    """
    before, start = stored_mib(folder / layout.ARTIFACTS), time.perf_counter()
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": path}
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
        alone.remove(settings, model)
        entry = catalogue.models()[model].model_dump(mode="json")
        settings["models"][model] = entry | {"sources": [{"kind": "folder", "path": str(replica)}]}
    yield measure_step("pin", [*python, "stages", "pin", model], folder)
    yield measure_step("add", [*python, "stages", "add", model, "--targets", targets], folder)
    with alone.settings(folder / params.PARAMS, folder / params.PARAMS) as settings:
        alone.leave_only(settings, model)
    yield measure_step("plan", [*python, "stages", "plan"], folder)
    p = params.load(folder / params.PARAMS)
    tables = plan.derive(p)
    for stage, key in alone.steps(p, model):
        keys = [key] if key else []
        short = [key.removeprefix(f"{model}-") for key in keys if key not in {model, p.models[model].dataset}]
        yield measure_step(" ".join([stage, *short]), [*python, f"stages.{stage}", *keys], folder)
        if stage == "export":
            line = tables.variants[str(key)]
            add_batch(folder / layout.graphs(line.model, line.variant, stage))
    yield measure_step("package", [*python, "benchmarks.scale", "--package"], folder)
    if model == WITH_PEERS:
        yield from peers(replica, folder)


def add_batch(folder: Path) -> None:
    """Add a latency case of BATCH recordings in one call to the graph set in a folder, where its graphs take several.

    The first is as long as the shortest case, each other one has two thirds of the one before
    (`stages.core.graphs.example_feeds`).
    """
    graph_set = graphs.read(folder)
    if networks.is_batched(graph_set):
        name, shortest = next(iter(graph_set.cases.items()))
        batch = Case(sizes=shortest.sizes | {parity.BATCH: BATCH}, seconds=None)
        cases = {f"{BATCH}x{name}": batch} | graph_set.cases  # the largest, of which memory is measured, stays last
        write_json(folder / graphs.FILE, graph_set.model_copy(update={"cases": cases}).model_dump())


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


def speeds(folder: Path, build: Build) -> Iterator[Speed]:
    """Yield every latency case of a build as stage `benchmark` found it."""
    measured = folder / layout.measurements(build.target, build.model) / "latency.json"
    for name, found in json.loads(measured.read_text(encoding="utf-8"))["cases"].items():
        case, threads, _ = name.rsplit("_", 2)
        yield Speed(build.target, case, threads, found["baseline_p50_ms"], found["speedup"], found["ci"])


def floors(folder: Path, artifact: str) -> list[Row]:
    """Measure the floor of every latency case of an artifact, in a process of its own."""
    place = folder / "floor.json"
    command = [
        sys.executable,
        "-m",
        "benchmarks.floor",
        str(folder / layout.ARTIFACTS / artifact),
        "--json",
        str(place),
    ]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    (rows,) = json.loads(place.read_text(encoding="utf-8")).values()
    return [Row(**row) for row in rows]


def run(model: str, targets: str, folder: Path) -> Record:
    """Take one model through all steps, and measure what came of it."""
    print(f"{model}, {machine.cpu()}", flush=True)
    steps = list(build(model, targets, folder))
    p = params.load(folder / params.PARAMS)
    checkpoint = weights.find(folder / "replica").stat().st_size / MIB
    builds = plan.derive(p).builds.values()
    found = [speed for build in builds for speed in speeds(folder, build)]
    return Record(model, checkpoint, steps, found, {build.target: floors(folder, build.artifact) for build in builds})


def run_all(names: Sequence[str], targets: str, place: Path | None) -> None:
    """Take models through all steps, one after another, and print the tables of those that got through."""
    records: list[Record] = []
    try:
        for model in names:
            with tempfile.TemporaryDirectory() as scratch:
                folder = (place or Path(scratch)) / model
                folder.mkdir(parents=True, exist_ok=True)
                records.append(run(model, targets, folder.resolve()))
    finally:
        if records:
            print(scale_tables.report(records))


def main(argv: Sequence[str]) -> None:
    """Take one model of the catalogue, or one of each kind, through all stages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help=f"a name of the catalogue; without one, {', '.join(MODELS)}")
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
    elif options.model and options.model not in known:
        raise SystemExit(f"the catalogue has no model {options.model!r}; {did_you_mean(options.model, known)}")
    else:
        run_all([options.model] if options.model else MODELS, options.targets, options.folder)


if __name__ == "__main__":
    main(sys.argv[1:])
