"""What `make scale` found of several models, as Markdown: costs of stages, speedups, shares of the floor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from stages.core.speedups import describe_speedup

BUILDS = {
    "cpu_fp32_opt": "optimized fp32",
    "cpu_int8": "INT8",
    "cpu_pruned": "pruned",
    "cpu_pruned_int8": "pruned INT8",
}


class Step(NamedTuple):
    """What one step took: seconds, peak resident MiB over it and what it waited for, MiB that it added to artifacts."""

    name: str
    seconds: float
    peak: float
    disk: float


class Speed(NamedTuple):
    """Times of one build in one latency case beside the plain fp32 export.

    threads: as the case's name ends. speedup, ci: as `stages.core.speedups.speedup` gives them.
    """

    build: str
    case: str
    threads: str
    export_ms: float
    speedup: float
    ci: Sequence[float]

    def words(self) -> str:
        """Return the speedup and its interval."""
        return describe_speedup(self._asdict())


class Row(NamedTuple):
    """One latency case: the least milliseconds of each kind of work, and the median of a whole run."""

    case: str
    least: dict[str, float]
    measured: float

    @property
    def floor(self) -> float:
        """Return the least milliseconds of all work."""
        return sum(self.least.values())

    @property
    def share(self) -> float:
        """Return how much of the measured time the floor is."""
        return self.floor / self.measured


class Record(NamedTuple):
    """One model: its name, the MiB of its checkpoint, steps, speeds, and rows of the floor by build."""

    model: str
    checkpoint: float
    steps: Sequence[Step]
    speeds: Sequence[Speed]
    floors: Mapping[str, Sequence[Row]]


def report(records: Sequence[Record]) -> str:
    """Return all tables of the models."""
    parts = (costs(records), speeds(records), shares(records), floors(records))
    return "\n\n".join("\n".join(part) for part in parts)


def costs(records: Sequence[Record]) -> Iterator[str]:
    """Yield the table of steps: seconds, peak memory as a multiple of the checkpoint, and MiB on disk."""
    names = dict.fromkeys(step.name for record in records for step in record.steps)
    yield from _head(["step", *(f"{record.model}, {record.checkpoint:.0f} MiB" for record in records)])
    for name in names:
        yield _row([name, *(_cost(record, name) for record in records)])
    yield _row(["all", *(_total(record) for record in records)])


def _cost(record: Record, name: str) -> str:
    found = [step for step in record.steps if step.name == name]
    return ", ".join(f"{step.seconds:.1f} s, {step.peak / record.checkpoint:.1f}x, {step.disk:+.0f}" for step in found)


def _total(record: Record) -> str:
    seconds, disk = (sum(getattr(step, kind) for step in record.steps) for kind in ("seconds", "disk"))
    peak = max(step.peak for step in record.steps)
    return f"{seconds:.0f} s, {peak / record.checkpoint:.1f}x, {disk:+.0f}"


def speeds(records: Sequence[Record]) -> Iterator[str]:
    """Yield the table of speedups over the plain fp32 export, a row for each case at each number of threads."""
    yield from _head(["model", "case", "threads", "fp32 export ms", *BUILDS.values()])
    for record in records:
        for case, threads in dict.fromkeys((speed.case, speed.threads) for speed in record.speeds):
            found = {s.build: s for s in record.speeds if (s.case, s.threads) == (case, threads)}
            export = min(speed.export_ms for speed in found.values())
            cells = (found[build].words() if build in found else "" for build in BUILDS)
            yield _row([record.model, case, threads, f"{export:.1f}", *cells])


def shares(records: Sequence[Record]) -> Iterator[str]:
    """Yield the table of shares of the floor: its milliseconds over those measured, on one thread."""
    yield from _head(["model", "case", *BUILDS.values()])
    for record in records:
        for case in dict.fromkeys(row.case for rows in record.floors.values() for row in rows):
            rows = {build: row for build, found in record.floors.items() for row in found if row.case == case}
            cells = (_share(rows[build]) if build in rows else "" for build in BUILDS)
            yield _row([record.model, case, *cells])


def _share(row: Row) -> str:
    return f"{row.floor:.1f} / {row.measured:.1f} = {row.share:.2f}"


def floors(records: Sequence[Record], builds: Iterable[str] = ("cpu_int8", "cpu_pruned_int8")) -> Iterator[str]:
    """Yield the table of what the floor of some builds is made of, in milliseconds on one thread."""
    kinds = ("int8", "fp32", "attention", "rest")
    yield from _head(["model", "build", "case", *kinds, "floor", "measured"])
    for record in records:
        for build in builds:
            for row in record.floors.get(build, ()):
                times = (*(row.least[kind] for kind in kinds), row.floor, row.measured)
                yield _row([record.model, BUILDS[build], row.case, *(f"{ms:.1f}" for ms in times)])


def _head(names: Sequence[str]) -> Iterator[str]:
    yield _row(names)
    yield _row(["---"] * len(names))


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
