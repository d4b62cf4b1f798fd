"""A first build, with all models at the same time: what `kiln repro` begins with where nothing was built yet.

`dvc repro` runs one stage after another, and most keep one core busy. So each part of the schedule gets a `dvc repro`
of its own. What needs the machine for itself is left out: an ordinary `dvc repro` does that afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from stages.commands import schedule
from stages.commands.build import Build
from stages.commands.schedule import Part
from stages.core import failures
from stages.core.parallel import cores

ROUNDS = 4  # of models for each core, at most: of more, several are built by one process


class SideBySide:
    """The executor that builds parts in this working tree."""

    def __init__(self, build: Build) -> None:
        """Build nothing yet."""
        self.build = build
        # More models than cores: the last of them would leave cores idle.
        self._pool = ThreadPoolExecutor(2 * cores() + 1)
        self._running: dict[Future[set[str]], Part] = {}

    def has_room(self, part: Part) -> bool:
        """Tell whether a part can begin; a pipeline is timed, and gets a core for itself."""
        alike = [one.kind == part.kind for one in self._running.values()]
        if part.kind == "model":
            return len(alike) <= 2 * cores()
        return sum(alike) < cores() and (part.kind == "shared" or all(alike))

    def start(self, part: Part) -> None:
        """Begin to build a part."""
        self._running[self._pool.submit(self._build, part)] = part

    def wait(self) -> Iterator[tuple[Part, set[str]]]:
        """Wait until a part ends."""
        for future in wait(self._running, return_when=FIRST_COMPLETED).done:
            yield self._running.pop(future), future.result()

    def _build(self, part: Part) -> set[str]:
        """Run `dvc repro` of these stages alone, up to one that fails; those that touch other files run meanwhile."""
        arguments = ["--wait-for-lock", "repro", "--single-item", *part.stages]
        self.build.run(arguments, forked=len(part.stages) > 1)
        with self.build.tally.lock:
            return {stage for stage in part.stages if self.build.tally.has_built(stage)}


def side_by_side(build: Build) -> bool:
    """Build all parts that need not have the machine for themselves; tell whether that could begin.

    None begins where `environment` fails, on which all depend: it checks params.yaml and pins/ too.
    """
    if build.run(["repro", "stages/dvc.yaml"]):
        return False
    parts = [part for part in schedule.parts(failures.index_graph()) if part.kind != "timing"]
    try:
        schedule.run(_gather(parts), SideBySide(build))
    except BaseException:
        build.stop()  # or the pool would wait for all
        raise
    return True


def _gather(parts: Sequence[Part]) -> list[Part]:
    """Merge parts into as many as keep all cores busy: each process of DVC reads all stages and imports libraries."""
    pipelines = [part for part in parts if part.kind == "pipeline"]
    others = [part for part in parts if part.kind != "pipeline"]
    return schedule.gather(others, ROUNDS * cores()) + schedule.gather(pipelines, cores())
