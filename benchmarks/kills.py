"""Kill builds of a small project with the real DVC, build again, and compare every byte with what must be there.

    python -m benchmarks.kills --random 60 --aimed 40 --seed 0

A random kill comes at any moment of a build: a first one, of all models side by side, or one after the other. An aimed
kill comes while a `dvc.lock` or `.dvc/tmp/rwlock` is half written: a hook in DVC's process writes a part and waits.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from ruamel.yaml import YAML
from tqdm import tqdm

ROOT = Path(__file__).parents[1]
MODELS = ("a", "b")
SOURCE = Path("source.txt")
RUNS = Path("runs.log")  # a line for each start of a stage
AIMED = Path("aimed")  # is there while a lock is half written
PATIENCE = 20.0  # seconds for what a killed build started to end
STAGE = """
import hashlib, json, sys, time
from pathlib import Path
from stages.core.errors import entrypoint
from stages.core.files import write_text

def main(argv):
    name, out, *needs = argv
    with open("runs.log", "a") as log:
        log.write(f"{name} {Path('source.txt').read_text()}\\n")
    time.sleep(0.1)
    digest = hashlib.sha256((name + "".join(Path(need).read_text() for need in needs)).encode()).hexdigest()
    write_text(Path(out), json.dumps({"builds": {}, "pipelines": {}, "digest": [digest] * 1000}))

entrypoint(main)
"""
HOOK = """
import os, sys, time
if "stages.commands.dvc" in sys.orig_argv and os.environ.get("AIM"):
    import json
    from types import SimpleNamespace
    import dvc.rwlock
    from dvc.utils.serialize import _yaml
    what, number, share = os.environ["AIM"].split(":")
    count = 0

    def slow(stream, text):
        global count
        count += 1
        if count != int(number):
            stream.write(text)
            return
        part = int(float(share) * len(text))
        stream.write(text[:part])
        stream.flush()
        open("aimed", "w").close()
        time.sleep(60)

    def dump_json(value, stream):
        slow(stream, json.dumps(value)) if what == "rwlock" else json.dump(value, stream)

    def dump_yaml(data, stream):
        is_lock = what == "dvc.lock" and str(getattr(stream, "name", "")).endswith("dvc.lock")
        slow(stream, _yaml.dumps_yaml_(data)) if is_lock else dump(data, stream)

    def write_text(place, text):
        if what == "dvc.lock":
            with place.with_name(f".{place.name}.torn_now.tmp").open("w") as stream:
                slow(stream, text)
        write(place, text)

    def dumps(data):
        import io
        text = io.StringIO()
        dump(data, text)
        return text.getvalue()

    dump, _yaml.dumps_yaml_ = _yaml._dump, dumps
    _yaml._dump = dump_yaml
    from stages.core.patches import dvc as patches
    write, patches.write_text = patches.write_text, write_text
    dvc.rwlock.json = SimpleNamespace(**{**vars(json), "dump": dump_json})
"""
NEEDS = {
    "environment": [],
    **{f"fetch@{model}": ["source.txt", "environment"] for model in MODELS},
    **{f"export@{model}": [f"fetch@{model}"] for model in MODELS},
    "summary": [f"export@{model}" for model in MODELS],
    "gate": ["summary"],
}


@dataclass
class Counts:
    """What became of all kills."""

    kills: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    healed: int = 0

    def fault(self, what: str) -> None:
        """Note what must not be, and print it at once."""
        self.faults.append(what)
        print(f"fault: {what}", flush=True)


def out(stage: str) -> str:
    """Return the file that a stage of the small project makes."""
    return {"summary": "reports/summary.json"}.get(stage, f"artifacts/{stage.replace('@', '/')}")


def make(place: Path) -> None:
    """Write the small project: stages of the names of ours that take no time, in three dvc.yaml files."""
    for name in ("params.yaml", "plan.yaml", ".dvcignore"):
        shutil.copy(ROOT / name, place)
    (place / "run.py").write_text(STAGE)
    (place / "hook").mkdir()
    (place / "hook" / "sitecustomize.py").write_text(HOOK)
    (place / SOURCE).write_text("0")
    files = {".": ("summary", "gate"), "stages": ("environment",), "stages/dag/x": (*NEEDS,)[1:-2]}
    for folder, names in files.items():
        (place / folder).mkdir(parents=True, exist_ok=True)
        YAML().dump({"stages": _blocks(names, os.path.relpath(place, place / folder))}, place / folder / "dvc.yaml")
    (place / ".dvc").mkdir()
    for name in ("config", ".gitignore"):
        shutil.copy(ROOT / ".dvc" / name, place / ".dvc")
    subprocess.run(["git", "init", "--quiet"], cwd=place, check=True)


def _blocks(names: Sequence[str], wdir: str) -> dict[str, dict[str, object]]:
    """Return the blocks of a dvc.yaml: one for each name, with its keys where it has some."""
    blocks: dict[str, dict[str, object]] = {}
    for name in names:
        needs = [need if need == str(SOURCE) else out(need) for need in NEEDS[name]]
        block: dict[str, object] = {"wdir": wdir, "cmd": f"python run.py {name} {out(name)} {' '.join(needs)}"}
        block |= {"deps": needs, "outs": [out(name)]} if needs else {"outs": [out(name)], "always_changed": True}
        stage, _, key = name.partition("@")
        if key:
            template = json.loads(json.dumps(block).replace(f"@{key}", "@${item}").replace(f"/{key}", "/${item}"))
            blocks[stage] = {"foreach": [*MODELS], "do": template}
        else:
            blocks[name] = block
    return blocks


def expected(source: str) -> dict[str, str]:
    """Return what every output must be, byte by byte."""
    made = {str(SOURCE): source}
    for stage, needs in NEEDS.items():
        needed = "".join(made[need if need == str(SOURCE) else out(need)] for need in needs)
        digest = hashlib.sha256((stage + needed).encode()).hexdigest()
        made[out(stage)] = json.dumps({"builds": {}, "pipelines": {}, "digest": [digest] * 1000})
    return made


def start(place: Path, aim: str = "") -> subprocess.Popen[str]:
    """Start `kiln repro` in a session of its own, as a terminal does."""
    environment = {**os.environ, "AIM": aim, "PYTHONPATH": os.pathsep.join([str(ROOT), str(place / "hook")])}
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return subprocess.Popen(
        [sys.executable, "-m", "stages", "repro"],
        cwd=place,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def alive(place: Path) -> list[str]:
    """List what still runs in the project, by command line."""
    found = []
    for process in psutil.process_iter(["pid", "cwd", "cmdline", "status"]):
        cwd, is_zombie = process.info["cwd"], process.info["status"] == psutil.STATUS_ZOMBIE
        if cwd and not is_zombie and Path(cwd).is_relative_to(place):
            found.append(" ".join(process.info["cmdline"] or []))
    return found


def _dvc_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    try:
        return [c for c in psutil.Process(process.pid).children() if "stages.commands.dvc" in c.cmdline()]
    except psutil.Error:
        return []


def _kill_dvc(process: subprocess.Popen[str]) -> None:
    for child in _dvc_of(process):
        child.kill()


KILLS: dict[str, Callable[[subprocess.Popen[str]], None]] = {
    "build killed": lambda process: process.kill(),
    "build terminated": lambda process: process.terminate(),
    "Ctrl-C": lambda process: os.killpg(process.pid, signal.SIGINT),
    "dvc killed": _kill_dvc,
    "all killed": lambda process: os.killpg(process.pid, signal.SIGKILL),
}


def _started(place: Path, source: str) -> Counter[str]:
    """Count how often each stage was started on a source."""
    lines = (place / RUNS).read_text().splitlines() if (place / RUNS).is_file() else []
    return Counter(line.split()[0] for line in lines if line.split()[1:] == [source])


def _wait(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not (met := condition()) and time.monotonic() < end:
        time.sleep(0.02)
    return met


def trial(place: Path, counts: Counts, *, first: bool, kill: str, moment: float | str) -> None:
    """Start a build of a new source, kill it at a moment, build again, and note every fault.

    first: without anything built before. moment: seconds, or which write of which lock to wait for and the share of it
    that gets written.
    """
    source = str(int((place / SOURCE).read_text()) + 1)
    (place / SOURCE).write_text(source)
    (place / AIMED).unlink(missing_ok=True)
    if first:
        for name in ("artifacts", "reports", "dvc.lock", "stages/dvc.lock", "stages/dag/x/dvc.lock", ".dvc/cache"):
            path = place / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    process = start(place, moment if isinstance(moment, str) else "")
    if isinstance(moment, str):
        _wait(lambda: (place / AIMED).exists() or process.poll() is not None, 120)
    else:
        _wait(lambda: process.poll() is not None, moment)
    if process.poll() is None:
        KILLS[kill](process)
        counts.kills[f"{moment.split(':')[0]}: {kill}" if isinstance(moment, str) else f"random: {kill}"] += 1
    before = _started(place, source)
    process.communicate()
    where = f"source {source}, {kill} at {moment}"
    again = start(place)  # at once: it waits for what is about to end, or names it
    said, _ = again.communicate()
    counts.healed += "removed" in said
    if again.returncode:
        counts.fault(f"{where}: the next build failed: {said}")
    wrong = [name for name, text in expected(source).items() if (place / name).read_text() != text]
    if wrong:
        counts.fault(f"{where}: wrong bytes in {wrong}")
    finished = {need for stage in before for need in NEEDS[stage]} - {"environment"}
    lost = [stage for stage in finished if _started(place, source)[stage] > before[stage]]
    if lost:
        counts.fault(f"{where}: ran again though finished: {lost}: {said}")
    if not _wait(lambda: not alive(place), PATIENCE):
        counts.fault(f"{where}: still alive: {alive(place)}")
    left = [str(path.relative_to(place)) for path in place.rglob(".*.tmp") if ".dvc" not in path.parts]
    if left:
        counts.fault(f"{where}: left behind: {left}")


def run(place: Path, randomly: int, aimed: int, seed: int, longest: float) -> Counts:
    """Kill the project in `place` that many times of each kind; a random kill comes within `longest` seconds."""
    draw, counts = random.Random(seed), Counts()  # noqa: S311  of moments
    make(place)
    for number in tqdm(range(randomly + aimed), desc="kills", disable=None):
        first, kill = draw.random() < 0.5, draw.choice([*KILLS])
        moment: float | str = draw.uniform(0, longest)
        if number >= randomly:
            lock = ("dvc.lock", "rwlock")[number % 2]
            moment = f"{lock}:{draw.randint(1, 5 if lock == 'dvc.lock' else 6)}:{draw.random():.3f}"
        trial(place, counts, first=first, kill=kill, moment=moment)
    return counts


def main(argv: Sequence[str]) -> None:
    """Print how many kills of each kind there were, and every fault; status 1 if there was one."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kills")
    parser.add_argument("--random", type=int, default=60)
    parser.add_argument("--aimed", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--longest", type=float, default=8.0, help="seconds until the latest random kill")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        counts = run(Path(folder).resolve(), arguments.random, arguments.aimed, arguments.seed, arguments.longest)
    for kind, count in sorted(counts.kills.items()):
        print(f"{count:3} {kind}")
    print(f"{counts.kills.total()} builds killed, {counts.healed} healed, {len(counts.faults)} faults")
    sys.exit(1 if counts.faults else 0)


if __name__ == "__main__":
    main(sys.argv[1:])
