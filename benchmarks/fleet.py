"""Measure what DVC itself costs by the number of models, in a project whose stages only write their outputs.

    python -m benchmarks.fleet 10 100 1000

The project has this one's code, dvc.yaml files and settings, with that many models of two targets each; its stages run
a line of shell. Columns are seconds, with those of a processor in brackets: `plan` of `kiln plan` where there is no
plan.yaml, `fresh` of the first `kiln repro`, `no-op` of the next. With `--ray`, `fresh` goes over a loopback cluster of
two machines of one core each, with a folder as DVC's remote; the brackets leave out what they use.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML

from stages.core.machine import cpu
from stages.runtimes import older

ROOT = Path(__file__).parents[1]
TARGETS = ("cpu_fp32", "cpu_int8")
LIKE = "paraformer"  # the miniature that every model is a copy of
STAGE = """seconds=$1; shift
sleep "$seconds"
for out; do mkdir -p "$(dirname "$out")"; echo '{"builds": {}, "pipelines": {}}' > "$out"; done
"""
COLUMNS = ("models", "stages", "plan", "fresh", "no-op")


def make(place: Path, models: int, seconds: float = 0.0) -> None:
    """Write and commit a project of that many models, whose stages sleep for so long."""
    shutil.copytree(ROOT / "stages", place / "stages", ignore=shutil.ignore_patterns("__pycache__", "dvc.lock"))
    for folder in (".dvc", f"zoo/{LIKE}", "searches", "benchmarks/gpu"):
        shutil.copytree(ROOT / folder, place / folder, ignore=shutil.ignore_patterns("cache", "tmp", "config.local"))
    for name in (".dvcignore", ".gitignore", "dvc.yaml", "pyproject.toml"):
        shutil.copy(ROOT / name, place)
    (place / "stage.sh").write_text(STAGE)
    for path in (place / "dvc.yaml", *(place / "stages" / "dag").rglob("dvc.yaml")):
        _replace_commands(path, seconds)
    names = [f"m{number:04}" for number in range(models)]
    (place / "pins").mkdir()
    for name in names:
        shutil.copy(ROOT / "pins" / f"{LIKE}.json", place / "pins" / f"{name}.json")
    _write_settings(place, names)
    _run(place, ["git", "init", "--quiet"])
    kiln(place, "plan")
    commit(place)


def commit(place: Path) -> None:
    """Commit all that git does not ignore, apart from DVC's locks."""
    _run(place, ["git", "add", "--all", ":!*dvc.lock"])
    author = ["-c", "user.name=fleet", "-c", "user.email=fleet@localhost"]
    _run(place, ["git", *author, "commit", "--quiet", "--allow-empty", "--message", "a fleet"])


def _replace_commands(path: Path, seconds: float) -> None:
    """Have every stage of a dvc.yaml sleep and write its outputs, whatever it runs."""
    content = YAML(typ="safe").load(path)
    for block in content["stages"].values():
        stage = block.get("do", block)
        outs = [*stage.get("outs", []), *stage.get("metrics", [])]
        stage["cmd"] = f"sh stage.sh {seconds} {' '.join(outs)}"
    content.pop("plots", None)
    yaml = YAML()
    yaml.width = 4096
    yaml.dump(content, path)


def _write_settings(place: Path, names: Sequence[str]) -> None:
    settings: dict[str, Any] = YAML(typ="safe").load(ROOT / "params.yaml")
    model = {**settings["models"][LIKE], "targets": [*TARGETS]}
    dataset = model["dataset"]
    settings |= {
        "models": dict.fromkeys(names, model),
        "datasets": {dataset: settings["datasets"][dataset]},
        "pipelines": {},
    }
    yaml: Any = YAML(typ="safe")
    yaml.representer.ignore_aliases = lambda _: True
    yaml.dump(settings, place / "params.yaml")


class Cost(NamedTuple):
    """The seconds that a command took, and those of a processor that it and what it started used."""

    elapsed: float
    processor: float

    def __str__(self) -> str:
        """Write both, as the table has them."""
        return f"{self.elapsed:.1f} ({self.processor:.1f})"


def kiln(place: Path, *arguments: str, says: str = "") -> Cost:
    """Run the command in the project and return what it took; `says` is part of what it has to print."""
    begin, before = time.perf_counter(), _processor()
    said = _run(place, [sys.executable, "-m", "stages", *arguments])
    if says not in said:
        raise RuntimeError(f"kiln {' '.join(arguments)}: wanted {says!r} in {said[-2000:]}")
    return Cost(time.perf_counter() - begin, _processor() - before)


def _processor() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _run(place: Path, command: Sequence[str]) -> str:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        command, cwd=place, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


@contextmanager
def cluster(nodes: int) -> Iterator[Any]:
    """Run a loopback cluster of so many machines of one core each, beside a head without any; yield it."""
    import ray
    from ray.cluster_utils import Cluster

    memory = {"object_store_memory": 80 * 2**20}
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **memory})
    try:
        for _ in range(nodes):
            made.add_node(num_cpus=1, **memory)
        yield made
    finally:
        ray.shutdown()
        made.shutdown()


def share_remote(place: Path, remote: Path) -> None:
    """Name a folder as DVC's remote, and commit that; give the project what workers find beside their Python."""
    _run(place, [sys.executable, "-m", "dvc", "remote", "add", "--quiet", "--default", "shared", str(remote)])
    commit(place)
    link_older(place)


def link_older(place: Path) -> None:
    """Give a project this checkout's older ONNX Runtimes, without which its workers are another kind of machine."""
    (place / older.FOLDER.parent).mkdir()
    (place / older.FOLDER).symlink_to(ROOT / older.FOLDER)


def grow(place: Path, models: int) -> None:
    """Make a project of one model that was built one of many, as if all had been: they are copies of each other."""
    (first,) = [path.stem for path in (place / "pins").iterdir()]
    names = [f"m{number:04}" for number in range(models)]
    for name in names[1:]:
        shutil.copy(place / "pins" / f"{first}.json", place / "pins" / f"{name}.json")
        for folder in [place / "artifacts" / first, *(place / "reports" / "measurements").glob(f"*/{first}")]:
            shutil.copytree(folder, folder.with_name(name))
    for lock in (place / "stages" / "dag").rglob("dvc.lock"):
        head, entries = lock.read_text().split("stages:\n")
        each = re.split(r"(?m)^(?=  \S)", entries)
        own, shared = ([entry for entry in each if (first in entry) == is_own] for is_own in (True, False))
        copies = [entry.replace(first, name) for name in names for entry in own]
        lock.write_text("".join([head, "stages:\n", *shared, *copies]))
    _write_settings(place, names)
    kiln(place, "plan")
    kiln(place, "repro")  # the reports, of all models


def measure(models: int, *, ray: bool, grown: bool) -> dict[str, object]:
    """Return a line of the table by column."""
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch, "project").resolve()
        place.mkdir()
        make(place, 1 if grown else models)
        fresh = None if grown else _build(place, Path(scratch, "remote").resolve(), ray=ray)
        if grown:
            kiln(place, "repro")
            grow(place, models)
        locks = [place / "dvc.lock", *(place / "stages" / "dag").rglob("dvc.lock")]
        stages = sum(len(YAML(typ="safe").load(lock)["stages"]) for lock in locks)
        again = kiln(place, "repro", says="nothing to build: ")
        (place / "plan.yaml").unlink()
        return {
            "models": models,
            "stages": stages,
            "plan": kiln(place, "plan"),
            "fresh": fresh or "not run",
            "no-op": again,
        }


def _build(place: Path, remote: Path, *, ray: bool) -> Cost:
    if not ray:
        return kiln(place, "repro")
    share_remote(place, remote)
    with cluster(2) as made:
        return kiln(place, "repro", "--ray", made.address)


def main(argv: Sequence[str]) -> None:
    """Print the table as Markdown, a line as soon as it is measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet")
    parser.add_argument("models", type=int, nargs="+")
    parser.add_argument("--ray", action="store_true")
    parser.add_argument("--grown", action="store_true", help="measure no fresh build: copy that of one model")
    arguments = parser.parse_args(argv)
    print(f"{cpu()}\n\n| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}", flush=True)
    for models in arguments.models:
        line = measure(models, ray=arguments.ray, grown=arguments.grown)
        print("|", " | ".join(str(line[column]) for column in COLUMNS), "|", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
