"""A first build, with all models at the same time: what `kiln repro` begins with where nothing was built yet.

`dvc repro` runs one stage after another, and most keep one core busy. Models share nothing but data sets up to their
measured accuracy, so each gets a `dvc repro` of its own, and then each pipeline, one on a core. What needs the
machine for itself is left out: an ordinary `dvc repro` does that afterwards.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from stages.commands.build import Build
from stages.core import failures
from stages.core.parallel import cores

ALONE = ("environment", "benchmark")  # stages that come before all others, or need the machine for themselves
Group = list[str]
"""DVC's names of stages, each after what it needs."""


def waves() -> list[list[Group]]:
    """Return groups that share nothing, wave after wave: data sets of several models, models, pipelines.

    DVC's own graph says what belongs to a model: what needs its checkpoint and no other, and data that only it needs.
    """
    import networkx as nx

    graph = failures.index_graph()
    alone = [stage for stage in graph if failures.block(stage) in ALONE]
    timed = [stage for stage in alone if failures.block(stage) == "benchmark"]
    late = {*alone, *(stage for one in timed for stage in nx.ancestors(graph, one))}
    ordered = [stage for stage in reversed(list(nx.topological_sort(graph))) if stage not in late]
    fetched = {
        stage: {s for s in nx.descendants(graph, stage) | {stage} if failures.block(s) == "fetch"} for stage in ordered
    }
    shared: list[Group] = []
    # In the order of params.yaml: a model that takes long and comes first does not keep all others waiting at the end.
    models: dict[Any, Group] = {stage: [] for stage in graph if failures.block(stage) == "fetch"}
    pipelines: list[Group] = []
    for stage in ordered:
        users = [fetched[s] for s in nx.ancestors(graph, stage) | {stage} if s not in late and len(fetched[s]) == 1]
        owners = fetched[stage] or set().union(*users)
        if len(fetched[stage]) > 1:
            pipelines.append([stage.addressing])
        elif len(owners) == 1:
            models[owners.pop()].append(stage.addressing)
        else:
            shared.append([stage.addressing])
    return [shared, list(models.values()), pipelines]


def side_by_side(build: Build) -> bool:
    """Build every group of a wave, one `dvc repro` for each, before the next wave; tell whether that could begin.

    A group that fails keeps back what needs it and nothing else. None begins where `environment` fails, on which all
    depend: it checks params.yaml and pins/ too.
    """
    if build.run(["repro", "stages/dvc.yaml"]):
        return False
    shared, models, pipelines = waves()
    # More models than cores: the last of them would leave cores idle. A pipeline is timed, and gets a core for itself.
    for wave, workers in ((shared, cores()), (models, 2 * cores() + 1), (pipelines, cores())):
        with ThreadPoolExecutor(workers) as pool:
            try:
                list(pool.map(lambda stages: _run(build, stages), wave))
            except BaseException:
                build.stop()  # or the pool would wait for all
                raise
    return True


def _run(build: Build, stages: Group) -> None:
    """Run `dvc repro` of these stages alone, up to one that fails; those that touch other files run meanwhile."""
    # More threads than cores: those of torch that wait for each other sleep, or they take half of all cores' time.
    arguments = ["--wait-for-lock", "repro", "--single-item", *stages]
    build.run(arguments, {"OMP_WAIT_POLICY": "passive"}, forked=len(stages) > 1)
