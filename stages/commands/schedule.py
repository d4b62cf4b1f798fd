"""The plan of a build as parts that are independent of each other, and the one loop that has them built.

What builds a part is an executor: `side_by_side` on this machine, `stages.cluster` on many.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import networkx as nx

from stages.core import failures, plan
from stages.core.params import Params
from stages.core.params.section import GPU_RUNTIMES
from stages.core.patches.dvc import dvc_once

Kind = Literal["shared", "model", "timing", "pipeline"]
KINDS: tuple[Kind, ...] = get_args(Kind)
FIRST = "environment"  # the stage that all others need, and that each process of DVC runs itself
LAST = ("report", "summary", "package", "gate")  # of all that there is
TIMED = ("timing", "pipeline")  # kinds of parts that measure time


@dataclass(frozen=True)
class Part:
    """Stages that one process builds, each after what it needs.

    stages: by the names that DVC takes. needs: stages of other parts. on_gpu: a CUDA device runs some of them.
    """

    name: str
    kind: Kind
    stages: tuple[str, ...]
    needs: frozenset[str]
    on_gpu: bool = False


class Executor(Protocol):
    """What builds parts, several at a time."""

    def has_room(self, part: Part) -> bool:
        """Tell whether the part can begin now, beside those that run."""

    def start(self, part: Part) -> None:
        """Begin to build a part."""

    def wait(self) -> Iterable[tuple[Part, Collection[str]]]:
        """Wait for parts to end; return each with those of its stages that were built."""


def run(parts: Sequence[Part], executor: Executor) -> list[Part]:
    """Build parts, each after all that it needs; return those that could not begin.

    A part whose needs were not built is kept back, and nothing else is.
    """
    waiting, running, built = list(parts), 0, _find_outer_needs(parts)
    while True:
        for part in [part for part in waiting if part.needs <= built]:
            if executor.has_room(part):
                waiting.remove(part)
                executor.start(part)
                running += 1
        if not running:
            return waiting
        for _, stages in executor.wait():
            built |= set(stages)
            running -= 1


def _find_outer_needs(parts: Sequence[Part]) -> set[str]:
    """Return what parts need of stages that are in none of them, and so are built."""
    inside = {stage for part in parts for stage in part.stages}
    return {need for part in parts for need in part.needs} - inside


def stale(graph: Any) -> set[Any]:
    """Return the stages of DVC's graph that differ from what their lock files say, and all that need those."""
    found: set[Any] = set()
    ordered = [stage for stage in _order_stages(graph) if failures.block(stage) != FIRST]
    with dvc_once(), ordered[0].repo.lock:
        for stage in ordered:
            if any(needed in found for needed in graph.successors(stage)) or stage.changed():
                found.add(stage)
    return found


def parts(graph: Any) -> list[Part]:
    """Return the parts of DVC's graph: each data set of several models, each model, its timing, each pipeline.

    DVC's own graph says what belongs to a model: what needs its checkpoint and no other, and data that only it needs.
    The reports of all of them are in no part, nor is `environment`.
    """
    ordered = [stage for stage in _order_stages(graph) if failures.block(stage) not in {FIRST, *LAST}]
    fetched = {stage: _checkpoints(graph, stage) for stage in ordered}
    found: dict[tuple[Kind, Any], list[Any]] = {}
    for stage in ordered:
        users = nx.ancestors(graph, stage) if not fetched[stage] else ()
        owners = fetched[stage] or set().union(*(fetched[s] for s in users if len(fetched.get(s, ())) == 1))
        kind: Kind = "pipeline" if len(fetched[stage]) > 1 else "model" if len(owners) == 1 else "shared"
        kind = "timing" if failures.block(stage) == "benchmark" else kind
        found.setdefault((kind, stage if kind in {"shared", "pipeline"} else owners.pop()), []).append(stage)
    # Models in the order of params.yaml: one that takes long and comes first keeps no others waiting at the end.
    places = {stage: place for place, stage in enumerate(graph)}
    ordered_parts = sorted(found.items(), key=lambda part: (KINDS.index(part[0][0]), places[part[0][1]]))
    return [_part(graph, kind, owner, stages) for (kind, owner), stages in ordered_parts]


def _order_stages(graph: Any) -> Iterator[Any]:
    """Yield the stages of DVC's graph, each after what it needs."""
    yield from reversed(list(nx.topological_sort(graph)))


def _checkpoints(graph: Any, stage: Any) -> set[Any]:
    """Return the stages that fetch the checkpoints that a stage needs."""
    return {one for one in nx.descendants(graph, stage) | {stage} if failures.block(one) == "fetch"}


def _part(graph: Any, kind: Kind, owner: Any, stages: Sequence[Any]) -> Part:
    name = owner.name.partition("@")[2] if kind in {"model", "timing"} else owner.name
    return Part(
        name=f"timing of {name}" if kind == "timing" else name,
        kind=kind,
        stages=tuple(stage.addressing for stage in stages),
        needs=_needs(graph, stages),
    )


def _needs(graph: Any, stages: Sequence[Any]) -> frozenset[str]:
    outside = {needed for stage in stages for needed in graph.successors(stage)} - set(stages)
    return frozenset(stage.addressing for stage in outside if failures.block(stage) != FIRST)


def restrict(chosen: Iterable[Part], stages: Collection[str]) -> list[Part]:
    """Return the parts with those of their stages alone; those of other stages are left out."""
    kept = [(part, tuple(stage for stage in part.stages if stage in stages)) for part in chosen]
    return [Part(part.name, part.kind, few, part.needs, part.on_gpu) for part, few in kept if few]


def with_gpu_apart(found: Iterable[Part], graph: Any, p: Params) -> Iterator[Part]:
    """Yield the parts, the stages of each that need a CUDA device as a part of its own."""
    known, on_gpu = {stage.addressing: stage for stage in graph}, _gpu_stages(graph, p)
    for part in found:
        stages = [known[stage] for stage in part.stages]
        gpu = [s for s in stages if s in on_gpu or (on_gpu & nx.descendants(graph, s))]
        for chosen, where in (([s for s in stages if s not in gpu], ""), (gpu, " on a GPU")):
            if chosen:
                names = tuple(stage.addressing for stage in chosen)
                yield Part(f"{part.name}{where}", part.kind, names, _needs(graph, chosen), on_gpu=bool(where))


def _gpu_stages(graph: Any, p: Params) -> set[Any]:
    """Return the stages that run, or build for this very machine, what is for a CUDA device."""
    tables = plan.derive(p)
    lines: dict[str, Any] = {f"engine@{key}": line for key, line in tables.engine.items()}
    lines |= {f"{block}@{key}": line for block in ("evaluate", "benchmark") for key, line in tables.builds.items()}
    lines |= {f"pipeline@{key}": line for key, line in tables.pipelines.items()}
    names = {name for name, line in lines.items() if p.targets[line.target].runtime in GPU_RUNTIMES}
    return {stage for stage in graph if stage.name in names}


def gather(found: Sequence[Part], most: int) -> list[Part]:
    """Merge parts of the same kind into at most `most`: DVC reads all stages for each, however few it builds."""
    by_kind: dict[tuple[Kind, bool], list[Part]] = {}
    for part in found:
        by_kind.setdefault((part.kind, part.on_gpu), []).append(part)
    return [
        one for group in by_kind.values() for one in (_merged(group[i::most]) for i in range(min(most, len(group))))
    ]


def _merged(group: Sequence[Part]) -> Part:
    if len(group) == 1:
        return group[0]
    stages = tuple(stage for part in group for stage in part.stages)
    needs = frozenset(need for part in group for need in part.needs) - set(stages)
    name = f"{group[0].name} and {len(group) - 1} more"
    return Part(name, group[0].kind, stages, needs, group[0].on_gpu)
