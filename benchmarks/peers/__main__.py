"""Kiln's builds and other tools', from the same checkpoints, on the same data: `make peers`, after `make repro`.

`make peers MODEL=sensevoice` measures one model alone.

Each tool has an environment of its own under .cache/peers/, made from benchmarks/peers/<environment>.txt, and a script
of that name that runs in it. FunASR and sherpa-onnx start from the checkpoint, as Kiln does; the others from Kiln's
plain export. Every step is a process of its own in a scratch folder, timed, with its peak resident memory; this process
imports little, because a child's peak begins at its parent's. All ONNX artifacts run in Kiln's ONNX Runtime, OpenVINO's
in OpenVINO; either is timed in one process with the plain export, in turn, on one thread, and the artifacts in ROUNDS
turns, so that what else the machine does hits all alike.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Column, Table

from stages.core import graphs, layout, params, plan
from stages.core.credentials import redacted
from stages.core.params import Params
from stages.core.speedups import describe_speedup, speedup
from stages.core.statistics import Floats

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = ROOT / layout.CACHE / "peers"
CONFIDENCE = 0.95  # of the intervals of speedups
ROUNDS = 5
SECONDS = 0.12  # of each case in each round
REASON = 100  # characters
AGREEMENT = {
    "fsmn_vad": "offline_frame_agreement",
    "paraformer": "offline_token_agreement",
    "sensevoice": "woitn_token_agreement",
}
TRUTH = {"fsmn_vad": "offline_truth_f1", "paraformer": "offline_cer", "sensevoice": "woitn_cer"}
KILN = {  # target: the stages that make it, {} being the model
    "cpu_fp32": ["export {}-dense"],
    "cpu_fp32_opt": ["simplify {}-dense", "optimize {}-dense"],
    "cpu_int8": ["simplify {}-dense", "optimize {}-dense", "quantize {}-dense-int8"],
    "cpu_pruned_int8": [
        "prune {}",
        "export {}-pruned",
        "simplify {}-pruned",
        "optimize {}-pruned",
        "quantize {}-pruned-int8",
    ],
}


@dataclass(frozen=True)
class Peer:
    """A tool with one of its recipes.

    models: those that it takes. fails: those of them that it is known to fail on, which is no error.
    """

    name: str
    environment: str
    recipe: str
    models: Sequence[str] = tuple(AGREEMENT)
    fails: Sequence[str] = ()

    @property
    def file(self) -> str:
        """Return the file name of the artifact that the tool makes."""
        return "model.xml" if self.environment == "openvino" else "model.onnx"


PEERS = (
    # It passes what torch's exporter does not take of these two.
    Peer("FunASR's export()", "funasr", "export", fails=("fsmn_vad", "paraformer")),
    Peer("FunASR's export(), TorchScript exporter", "funasr", "export_torchscript"),
    Peer("sherpa-onnx's export-onnx.py", "funasr", "sherpa_onnx", models=("sensevoice",)),
    Peer("sherpa-onnx's, TorchScript exporter", "funasr", "sherpa_onnx_torchscript", models=("sensevoice",)),
    Peer("ONNX Runtime, dynamic, its defaults", "onnxruntime", "defaults"),
    Peer("ONNX Runtime, dynamic, MatMul, per channel", "onnxruntime", "dynamic"),
    Peer("ONNX Runtime, static, Conv and MatMul, per channel", "onnxruntime", "static"),
    Peer("Olive, dynamic, MatMul, per channel", "olive", "dynamic"),
    Peer("Olive, static, Conv and MatMul, per channel", "olive", "static"),
    Peer("OpenVINO fp32", "openvino", "fp32"),
    Peer("NNCF INT8 in OpenVINO", "openvino", "int8"),
    # Its smoothing stacks statistics of the calls, which differ in shape where an utterance has other tokens.
    Peer("NNCF INT8 for transformers in OpenVINO", "openvino", "int8_transformer", fails=("paraformer",)),
    Peer("ModelOpt INT8 QDQ", "modelopt", "int8"),
)


@dataclass
class Cost:
    """Wall and CPU seconds and peak resident MiB of processes that ran one after another."""

    seconds: float = 0
    cpu: float = 0
    mib: float = 0

    def __add__(self, other: Cost) -> Cost:
        """Add the cost of processes that ran afterwards: times add up, the higher peak of memory counts."""
        return Cost(self.seconds + other.seconds, self.cpu + other.cpu, max(self.mib, other.mib))


@dataclass
class Row:
    """One artifact of the table, or why there is none."""

    model: str
    name: str
    place: Path
    cost: Cost
    failure: str | None = None
    expected: bool = False
    accuracy: dict[str, Any] = field(default_factory=dict)  # metric to what `evaluate` says of it
    times: dict[str, list[tuple[Floats, Floats]]] = field(default_factory=dict)  # case to ms of both in every turn

    @property
    def python(self) -> str | None:
        """Return the path of the Python that runs the artifact, or None where it is Kiln's own."""
        return str(interpreter("openvino")) if self.place.suffix == ".xml" else None


def interpreter(environment: str) -> Path:
    """Return the path of the Python in a peer's environment."""
    return ENVIRONMENTS / environment / "bin" / "python"


def child_environment() -> dict[str, str]:
    """Return the environment variables of every child: Kiln's modules on the path, no usage statistics sent."""
    home = ENVIRONMENTS / "home"  # OpenVINO's consent to statistics is a file there; others leave caches
    (home / "intel").mkdir(parents=True, exist_ok=True)
    (home / "intel" / "openvino_telemetry").write_text("0")
    quiet = {"CI": "1", "OLIVE_DISABLE_TELEMETRY": "1", "NNCF_CI": "1"}
    return os.environ | {"HOME": str(home), "PYTHONPATH": str(ROOT)} | quiet


def failure_reason(log: str) -> str:
    """Find the line of a program's output that says why it failed: its last exception, else its last line.

    Colours and credentials are removed, and a long line is cut.
    """
    plain = redacted(re.sub(r"\x1b\[[\d;]*m", "", log))  # without colours
    lines = [line.strip() for line in plain.splitlines() if line.strip()]
    raised = [line for line in lines if re.match(r"[A-Za-z_][\w.]*(Error|Exception|Argument|Fail\w*)\b.*: ", line)]
    line = re.sub(r"^([A-Za-z_]\w*\.)+(?=\w+: )", "", (raised or lines or ["no output"])[-1])  # the module's name
    return line if len(line) <= REASON else line[: REASON - 3] + "..."


def install(environment: str) -> str | None:
    """Create an environment unless it is there with these requirements.

    Returns:
        Why it could not be created, or None.
    """
    wanted, folder = Path(__file__).with_name(f"{environment}.txt"), ENVIRONMENTS / environment
    stamp = folder / "installed.txt"
    if stamp.is_file() and stamp.read_text() == wanted.read_text():
        return None
    uv, python = str(Path(sys.executable).parent / "uv"), str(interpreter(environment))
    for command in (
        [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)],
        [uv, "pip", "install", "--quiet", "--python", python, "-r", str(wanted)],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            return f"not installed: {failure_reason(done.stderr)}"
    shutil.copy(wanted, stamp)
    return None


def measure_command(command: Sequence[str], folder: Path) -> tuple[Cost, str | None]:
    """Run a command in `folder`, its output going to log.txt there, and measure what it costs.

    Returns:
        Its cost with that of the processes it waited for, and why it failed, or None.
    """
    log, start = folder / "log.txt", time.perf_counter()
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=folder, env=child_environment(), stdout=output, stderr=output)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)  # it is waited for: Popen must not try
    cost = Cost(time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)
    if process.returncode < 0:
        return cost, f"ended by signal {-process.returncode}"
    return cost, failure_reason(log.read_text(errors="replace")) if process.returncode else None


def run_module(row: Row, python: str, module: str, *arguments: str) -> Any:
    """Run a module of this folder and return the JSON that it prints last.

    Returns:
        None where the module fails; the row then says why.
    """
    command = [python, "-m", f"benchmarks.peers.{module}", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=child_environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        row.failure = f"does not run: {failure_reason(done.stderr)}"
        return None
    return json.loads(done.stdout.splitlines()[-1])


def build_kiln(model: str, p: Params, scratch: Path) -> list[Row]:
    """Build Kiln's own targets from the checkpoint, stage by stage; a stage that several targets share runs once.

    Raises:
        SystemExit: a stage failed.
    """
    ours = scratch / layout.ARTIFACTS
    for path in (layout.checkpoint(model), layout.corpus(p.models[model].dataset)):
        (scratch / path).parent.mkdir(parents=True, exist_ok=True)
        (scratch / path).symlink_to((ROOT / path).resolve())
    costs: dict[str, Cost] = {}
    rows = []
    for target, steps in KILN.items():
        for step in (step.format(model) for step in steps):
            if step not in costs:
                stage, key = step.split()
                costs[step], failure = measure_command([sys.executable, "-m", f"stages.{stage}", key], scratch)
                if failure:
                    raise SystemExit(f"{step}: {failure}")
        cost = sum((costs[step.format(model)] for step in steps), Cost())
        rows.append(
            Row(
                model, f"Kiln {target}", ours / plan.derive(p).builds[f"{model}-{target}"].artifact / "model.onnx", cost
            )
        )
    return rows


def build_peer(peer: Peer, model: str, scratch: Path, broken: Mapping[str, str]) -> Row:
    """Build one peer's artifact of a model in a folder of its own.

    broken: environments that could not be installed, and why.
    """
    folder = scratch / f"{model}-{peer.environment}-{peer.recipe}"
    row = Row(model, peer.name, folder / "artifact" / peer.file, Cost(), expected=model in peer.fails)
    export = scratch / layout.graphs(model, "dense", "export")
    row.place.parent.mkdir(parents=True)
    if peer.environment in broken:
        row.failure = broken[peer.environment]
        return row
    source = ROOT / layout.checkpoint(model) if peer.environment == "funasr" else export / "model.onnx"
    script = [str(interpreter(peer.environment)), "-m", f"benchmarks.peers.{peer.environment}"]
    recorded = scratch / "calibration" / model
    row.cost, row.failure = measure_command([*script, peer.recipe, str(source), str(recorded), str(row.place)], folder)
    if row.failure is None and not row.place.is_file():
        row.failure = failure_reason((folder / "log.txt").read_text(errors="replace"))
    if row.failure is None:
        for stray in row.place.parent.iterdir():  # what a tool leaves beside its result is not the result's size
            if stray.stem != row.place.stem:
                shutil.rmtree(stray) if stray.is_dir() else stray.unlink()
        shutil.copy(export / graphs.FILE, row.place.parent)
    return row


def format_row(row: Row) -> list[str]:
    """Format a row as the cells of the table that `compare` makes."""
    if row.failure:
        return [row.model, row.name, f"failed: {row.failure}", *"-----"]
    agreement, truth = row.accuracy[AGREEMENT[row.model]], row.accuracy[TRUTH[row.model]]
    return [
        row.model,
        row.name,
        "{drift:+.4f} [{ci[0]:+.4f}, {ci[1]:+.4f}]".format(**agreement),
        f"{truth['value']:.4f}",
        " ".join(describe_speedup(speedup(blocks, CONFIDENCE)) for blocks in row.times.values()),
        f"{graphs.size(row.place.parent) / 1000:.0f}",
        f"{row.cost.seconds:.0f} ({row.cost.cpu:.0f})",
        f"{row.cost.mib:.0f}",
    ]


def score(row: Row, _: Path) -> None:
    """Measure the artifact's accuracy and put it into the row."""
    row.accuracy = run_module(
        row, sys.executable, "accuracy", row.model, str(row.place), *([row.python] if row.python else [])
    )


def time_turn(row: Row, scratch: Path) -> None:
    """Time one turn of the artifact beside the baseline and add the times to the row."""
    export, recorded = scratch / layout.graphs(row.model, "dense", "export"), scratch / "calibration" / row.model
    arguments = (str(export), str(row.place), str(recorded), str(SECONDS))
    found = run_module(row, row.python or sys.executable, "latency", *arguments) or {}
    for case, sides in found.items():
        row.times.setdefault(case, []).append((np.array(sides["baseline"]), np.array(sides["value"])))


def compare(measured: Sequence[str], scratch: Path) -> tuple[Table, bool]:
    """Build, score and time every artifact of these models.

    Returns:
        The table, and whether everything that should work here did.
    """
    p = params.load(ROOT / params.PARAMS)
    (scratch / params.PARAMS).symlink_to(ROOT / params.PARAMS)
    (scratch / "calibration").mkdir()
    broken = {name: why for name in sorted({peer.environment for peer in PEERS}) if (why := install(name))}
    rows: list[Row] = []
    for model in measured:
        rows += build_kiln(model, p, scratch)
        export = scratch / layout.graphs(model, "dense", "export")
        recorder = [sys.executable, "-m", "benchmarks.peers.calibration", model]
        subprocess.run(
            [*recorder, str(export), str(scratch / "calibration" / model)],
            cwd=ROOT,
            env=child_environment(),
            check=True,
        )
        for peer in (peer for peer in PEERS if model in peer.models):
            rows.append(build_peer(peer, model, scratch, broken))
            print(f"{model}: {peer.name}: {rows[-1].failure or 'built'}", flush=True)
    for measure in (score, *[time_turn] * ROUNDS):
        for row in rows:
            if row.failure is None:
                measure(row, scratch)
    heads = ("model", "build", "drift of agreement", "truth", "speedup", "kB", "build s (CPU)", "peak MiB")
    table = Table(*(Column(head, no_wrap=True) for head in heads), box=box.MARKDOWN)
    for row in rows:
        table.add_row(*format_row(row))
    return table, all(row.expected or row.failure is None for row in rows)


def main(argv: Sequence[str]) -> None:
    """Compare in a scratch folder and print the table; exit 1 if a peer failed that should work here."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="of " + ", ".join(AGREEMENT) + "; all by default")
    parser.add_argument("--folder", type=Path, help="keep the work in this empty folder; a temporary one by default")
    options = parser.parse_args(argv)
    measured = options.models or list(AGREEMENT)
    if unknown := set(measured) - set(AGREEMENT):
        parser.error(f"found {', '.join(sorted(unknown))}, wanted some of {', '.join(AGREEMENT)}")
    missing = [m for m in measured if not (ROOT / layout.reference(m)).is_dir()]
    if missing:
        raise SystemExit(f"no reference of {', '.join(missing)} in {layout.ARTIFACTS}/; `make repro` makes it")
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).resolve()
        folder.mkdir(exist_ok=True)
        table, good = compare(measured, folder)
    Console(width=400).print(table)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main(sys.argv[1:])
