"""Which stages of a build are done, which run, what failed, and how long the rest may take."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stages.core import failures, layout
from stages.core.errors import UserError
from stages.core.files import read_json, write_json

SECONDS = layout.BUILDS / "seconds.json"  # of each stage, when it last ran


@dataclass
class Running:
    """A stage that runs: since when, all its lines so far, and what its line of progress shows."""

    stage: str
    start: float = field(default_factory=time.monotonic)
    lines: list[str] = field(default_factory=list)
    doing: str = ""

    @property
    def seconds(self) -> float:
        """Return for how many seconds it has been running."""
        return time.monotonic() - self.start


class Tally:
    """The stages of one build by name, as DVC tells of them. A build side by side has several that run."""

    def __init__(self, arguments: Sequence[str]) -> None:
        """Begin a build that `dvc repro` gets these arguments for."""
        self.lock = threading.RLock()
        self.start = time.monotonic()
        self.before: Mapping[str, float] = read_json(SECONDS) if SECONDS.is_file() else {}
        self.ran: dict[str, float] = {}
        self.failed: dict[str, list[str]] = {}
        self.restored: set[str] = set()
        self.seen: set[str] = set()
        self.running: list[Running] = []
        self.needs: dict[str, set[str]] = {}  # what each stage that DVC looks at needs, directly or not; empty: unknown
        self._reading = threading.Thread(target=self._read_needs, args=(arguments,), daemon=True)  # takes a second

    def begin(self, stage: str) -> Running:
        """Note that a stage runs from now on; read how many there are, once one runs that does not always."""
        if self._reading.ident is None and stage != "environment":
            self._reading.start()
        self.seen.add(stage)
        running = Running(stage)
        self.running.append(running)
        return running

    def _read_needs(self, arguments: Sequence[str]) -> None:
        with suppress(UserError):  # DVC will say it
            self.needs = needs(arguments)

    def skip(self, stage: str, *, restored: bool) -> None:
        """Note that a stage need not run: it is up to date, or what it makes is in DVC's cache."""
        self.seen.add(stage)
        if restored:
            self.restored.add(stage)

    def finish(self, running: Running) -> None:
        """Note that a stage's run is over, well or not."""
        self.running.remove(running)
        self.ran[running.stage] = running.seconds

    def fail(self, stage: str, lines: Sequence[str]) -> None:
        """Note that a stage failed, with all that it said."""
        self.failed.setdefault(stage, list(lines))

    def has_built(self, stage: str) -> bool:
        """Tell whether what a stage makes is there, by DVC's name of it, with or without its file."""
        name = stage.rpartition(":")[2]
        runs = {running.stage for running in self.running}
        return name in self.seen and name not in self.failed and name not in runs

    @property
    def elapsed(self) -> float:
        """Return the seconds since the build began."""
        return time.monotonic() - self.start

    @property
    def position(self) -> str:
        """Return which stage this is of how many, where it is known how many."""
        is_known = self.needs and self.seen <= self.needs.keys()
        return f"{len(self.seen)} of {len(self.needs)}" if is_known else f"{len(self.seen)}"

    def rest(self) -> tuple[float, int]:
        """Estimate the seconds to go from the last build's, and count stages that never ran and are not in it.

        What needs a stage that ran will run too, unless that made what was there before.
        """
        now = {running.stage: running.seconds for running in self.running}
        began = self.ran.keys() | now
        ahead = [stage for stage, needed in self.needs.items() if stage not in self.seen and needed & began]
        left = [max(0.0, self.before[stage] - gone) for stage, gone in now.items() if stage in self.before]
        left += [self.before[stage] for stage in ahead if stage in self.before]
        return sum(left) / max(1, len(now)), sum(stage not in self.before for stage in ahead)

    def keep(self) -> None:
        """Write down what each stage took, for the next build to estimate by."""
        if self._reading.ident is not None:
            self._reading.join()
        write_json(SECONDS, {**self.before, **{stage: round(seconds, 2) for stage, seconds in self.ran.items()}})


def needs(arguments: Sequence[str]) -> dict[str, set[str]]:
    """Return what each stage needs that `dvc repro` looks at; nothing where options change that."""
    import networkx as nx

    if any(argument.startswith("-") for argument in arguments):
        return {}
    graph = failures.index_graph()
    chosen = [stage for stage in graph if not arguments or _names(stage) & {*arguments}]
    wanted = {needed for stage in chosen for needed in (stage, *nx.descendants(graph, stage))}
    return {stage.name: {needed.name for needed in nx.descendants(graph, stage)} for stage in wanted}


def _names(stage: Any) -> set[str]:
    """Return all names that `dvc repro` knows a stage by: with or without its file and its key, or only its file."""
    file = str(Path(stage.path_in_repo))
    return {stage.name, stage.addressing, failures.block(stage), f"{file}:{failures.block(stage)}", file}
