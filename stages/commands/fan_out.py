"""Build what is stale on the machines of a Ray cluster: what `kiln repro --ray ADDRESS` begins with.

Each part of the schedule is a task that unpacks the commit, builds its stages and pushes them to DVC's remote. Reports,
releases and the gate are made here, of all that comes back, and so is what no machine of the cluster may build.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Collection, Sequence
from contextlib import closing
from typing import Any

import networkx as nx

from stages import environment
from stages.cluster import inputs, locks
from stages.cluster.connection import Cluster
from stages.cluster.executor import OnRay
from stages.cluster.machines import NO_GPU
from stages.cluster.worker import PATIENCE
from stages.commands import schedule, tally
from stages.commands.build import Build
from stages.commands.schedule import Part
from stages.core import failures, git, params
from stages.core.errors import UserError, first_of
from stages.core.params import Params
from stages.core.patches.ray import ray_prints

TASKS = 4  # for each place of the cluster, at most: DVC reads all stages for each, and a lost machine costs one


def refuse() -> None:
    """Raise UserError where others that have the commit and DVC's remote would build something else than this tree."""
    git.refuse_changed(untracked=True)
    git.refuse_without_remote()


def fan_out(build: Build, address: str, targets: Sequence[str]) -> bool:
    """Build what is stale of the targets, of all without one, and fetch what was built; tell whether that could begin.

    Raises:
        UserError: the cluster cannot be used, or it could not build a part for another reason than a stage's failure;
            what was built stays in DVC's remote, and the next build goes on from there.
    """
    archive = subprocess.run(["git", "archive", "--format=tar.gz", "HEAD"], capture_output=True, check=True).stdout
    with ray_prints(), closing(Cluster(address, archive, build.display.print_line)) as cluster:
        os.environ[environment.DECLARED] = json.dumps(cluster.declared)  # for all that DVC runs here from now on
        if build.run(["repro", "stages/dvc.yaml"]):
            return False
        graph, p = failures.index_graph(), params.load()
        stale = _build_here(build, _stale(graph, targets), inputs.bound(graph, p))
        executor = OnRay(build, cluster)
        parts = _parts(executor, graph, p, stale)
        if parts:
            _offer(build, graph, stale)
            left = schedule.run(parts, executor)
            _fetch(build, executor, {stage for part in parts for stage in part.stages})
            _refuse_lost(executor, left)
    return True


def _stale(graph: Any, targets: Sequence[str]) -> set[Any]:
    """Return the stages that the targets need and that are not up to date."""
    wanted = tally.needs(targets)
    return {stage for stage in schedule.stale(graph) if not wanted or stage.name in wanted}


def _build_here(build: Build, stale: set[Any], bound: set[Any]) -> set[Any]:
    """Build the stale stages that only this machine can; return the others."""
    if here := sorted(stage.addressing for stage in stale & bound):
        build.run(["repro", "--keep-going", *here])
    return stale - bound


def _parts(executor: OnRay, graph: Any, p: Params, stale: Collection[Any]) -> list[Part]:
    """Return the parts of the stale stages that machines of the cluster may build."""
    parts = schedule.parts(graph)
    if executor.cluster.declared["gpu"] != NO_GPU:
        parts = list(schedule.with_gpu_apart(parts, graph, p))
    chosen = schedule.restrict(parts, {stage.addressing for stage in stale})
    possible = [part for part in chosen if executor.is_possible(part)]
    return schedule.gather(possible, TASKS * executor.cluster.slots)


def _offer(build: Build, graph: Any, stale: Collection[Any]) -> None:
    """Push what stale stages need and is built here already."""
    needed = {one for stage in stale for one in nx.descendants(graph, stage)} - set(stale)
    if built := sorted(stage.addressing for stage in needed if failures.block(stage) != schedule.FIRST):
        _transfer(build, "what the cluster needs could not be pushed", ["push", "--run-cache", *built])


def _fetch(build: Build, executor: OnRay, stages: Collection[str]) -> None:
    """Enter what was built into DVC's lock files and fetch it."""
    locks.merge(executor.locks, stages)
    _transfer(build, "what the cluster built could not be fetched", ["pull", "--run-cache", "--allow-missing"])


def _transfer(build: Build, failing: str, arguments: Sequence[str]) -> None:
    """Run DVC, and raise a UserError that begins with `failing` where its remote refuses or does not answer."""
    known = len(build.errors)
    if build.run(arguments, patience=PATIENCE):
        why = [*build.errors[known:], "DVC does not say why"][0]
        del build.errors[known:]
        raise UserError(f"{failing}: {why}; run it again to go on")


def _refuse_lost(executor: OnRay, left: Sequence[Part]) -> None:
    """Raise UserError where a part was lost; what a stage's failure keeps back is left to the build here to report."""
    lost = dict(executor.troubles)
    if not executor.cluster.machines:
        lost |= {part.name: "no machine of the cluster is left" for part in left if part.name not in lost}
    if lost:
        name, why = next(iter(lost.items()))
        others = [one for one in (*lost, *(part.name for part in left)) if one != name]
        more = f" (nor {first_of(list(dict.fromkeys(others)))})" if others else ""
        raise UserError(f"the cluster did not build {name}: {why}{more}; run it again to go on")
