"""The executor that builds parts on the machines of a Ray cluster."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from stages.cluster import machines
from stages.cluster.connection import Cluster, Report
from stages.cluster.machines import Machine
from stages.commands.build import Build
from stages.commands.schedule import TIMED, Part
from stages.commands.tally import Running
from stages.core.credentials import redacted

ATTEMPTS = 3  # on different machines, where there are some
SECONDS = 2.0  # between two looks at which machines there are
Ended = tuple[Part, Collection[str]]
"""A part, and those of its stages that were built."""


@dataclass(frozen=True)
class Attempt:
    """A part that is being built on a machine, and its line of the display."""

    part: Part
    machine: Machine
    running: Running


class OnRay:
    """Parts on machines: each on one that may build it, a machine for itself where time is measured.

    A part whose worker is lost, whose disk is full or that DVC's remote keeps waiting begins again, on another machine
    where there is one. troubles: what came between, of the parts that were given up. locks: DVC's lock files of all
    that was built.
    """

    def __init__(self, build: Build, cluster: Cluster) -> None:
        """Build nothing yet."""
        self.build, self.cluster = build, cluster
        self.troubles: dict[str, str] = {}
        self.locks: list[Mapping[str, str]] = []
        self._running: dict[Any, Attempt] = {}
        self._again: list[Part] = []
        self._failed: dict[str, list[str]] = {}  # nodes that lost a part, by the part's name

    def is_possible(self, part: Part) -> bool:
        """Tell whether a machine of the cluster may build the part."""
        return bool(self._able(part))

    def has_room(self, part: Part) -> bool:
        """Tell whether a machine that may build the part has room for it."""
        return self._place(part) is not None

    def _able(self, part: Part) -> list[Machine]:
        return [one for one in self.cluster.machines.values() if machines.takes(one, part, self.cluster.declared)]

    def _place(self, part: Part) -> Machine | None:
        """Find the machine with most room for a part, which to measure time has to be idle.

        One that lost the part before gets it only where there is no other.
        """
        able, lost = self._able(part), self._failed.get(part.name, [])
        able = [one for one in able if one.node not in lost] or able
        room = {one: self._room(one) for one in able}
        fitting = [one for one in able if (room[one] == one.slots if part.kind in TIMED else room[one] > 0)]
        return max(fitting, key=lambda one: room[one], default=None)

    def _room(self, machine: Machine) -> int:
        """Return how many more parts a machine has room for."""
        here = [one.part for one in self._running.values() if one.machine.node == machine.node]
        return 0 if any(part.kind in TIMED for part in here) else machine.slots - len(here)

    def start(self, part: Part) -> None:
        """Send a part to a machine."""
        machine = self._place(part)
        if machine is None:
            raise ValueError(f"no machine has room for {part.name}")
        is_timed = part.kind in TIMED
        reference = self.cluster.submit(
            machine.node,
            ["build", *part.stages],
            cpus=machine.slots if is_timed else 1,
            gpus=min(1.0, machine.gpus) if part.on_gpu else 0.0,
            alone=is_timed,
        )
        running = Running(f"{part.name}, on {machine.host}")
        self._running[reference] = Attempt(part, machine, running)
        with self.build.tally.lock:
            self.build.tally.running.append(running)

    def wait(self) -> Iterator[Ended]:
        """Wait for parts to end, well or for good; what a machine lost begins again meanwhile."""
        ended: list[Ended] = []
        while not ended:
            self.cluster.look()
            for part in [part for part in self._again if self.has_room(part)]:
                self._again.remove(part)
                self.start(part)
            if not self._running:  # no machine is left for these
                ended, self._again = [(part, ()) for part in self._again], []
                break
            ready = self.cluster.ended([*self._running], SECONDS)
            ended = [one for reference in ready if (one := self._take(reference)) is not None]
        yield from ended

    def _take(self, reference: Any) -> Ended | None:
        """Take what a worker reports of its part; None where the part has to begin again."""
        attempt, report = self._running.pop(reference), self.cluster.report(reference)
        with self.build.tally.lock:
            self.build.tally.running.remove(attempt.running)
            self._note(attempt.machine, report)
        if report["trouble"]:
            return self._lose(attempt, report["trouble"])
        self.troubles.pop(attempt.part.name, None)
        self.locks.append(report["locks"])
        return attempt.part, report["built"]

    def _lose(self, attempt: Attempt, trouble: str) -> Ended | None:
        """Note what came between; have the part begin again, unless it has been lost often enough."""
        name, nodes = attempt.part.name, self._failed.setdefault(attempt.part.name, [])
        nodes.append(attempt.machine.node)
        self.troubles[name] = redacted(f"on {attempt.machine.host}: {trouble}")
        is_last = len(nodes) == ATTEMPTS
        self.build.display.print_line(
            f"{name} {self.troubles[name]}; it {'is given up' if is_last else 'begins again'}"
        )
        if is_last:
            return attempt.part, ()
        self._again.append(attempt.part)
        return None

    def _note(self, machine: Machine, report: Report) -> None:
        """Enter into the tally and the log what a worker built."""
        tally = self.build.tally
        for line in report.get("log", "").splitlines():
            self.build.write(machine.host, line)
        for stage in {*report.get("ran", ()), *report.get("restored", ())} - {"environment"}:
            tally.seen.add(stage)
        for stage, seconds in report.get("ran", {}).items():
            if stage != "environment":
                tally.ran[stage] = seconds
                self.build.display.print_line(f"[{tally.position}] {stage}: {seconds:.1f} s, on {machine.host}")
