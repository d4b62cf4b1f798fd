"""`python -m stages side-by-side`: a first build, with as many models at a time as there are cores.

`dvc repro` runs one stage after another, and most keep one core busy. Models on different data sets share nothing up to
their measured accuracy, so each such group is built by a `dvc repro` of its own. What is timed is left out: it needs
the machine for itself, and an ordinary `dvc repro` does it afterwards.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from stages.core import params
from stages.core.errors import UserError
from stages.core.parallel import cores
from stages.core.params import Params

CHECKPOINTS, GRAPHS, ACCURACY = (f"stages/dag/{part}/dvc.yaml" for part in ("checkpoints", "graphs", "accuracy"))


def groups(p: Params) -> list[list[str]]:
    """DVC's names of the stages before any timing, each after what it needs, by group; the longest group first."""
    joined: list[tuple[set[str], list[str]]] = [({dataset}, []) for dataset in p.datasets]
    for name, model in p.models.items():
        datasets = {model.dataset, p.prune[name].dataset if name in p.prune else model.dataset}
        touched = [group for group in joined if group[0] & datasets]
        joined = [group for group in joined if group not in touched]
        joined.append((set().union(*(d for d, _ in touched)), [*(m for _, ms in touched for m in ms), name]))
    found = [[*(f"{CHECKPOINTS}:corpus@{name}" for name in sorted(d)), *_stages(p, models)] for d, models in joined]
    return sorted(found, key=len, reverse=True)


def _stages(p: Params, models: Iterable[str]) -> list[str]:
    tables: Mapping[str, Mapping[str, Any]] = {
        f"{CHECKPOINTS}:fetch": p.models,
        f"{CHECKPOINTS}:reference": p.models,
        f"{CHECKPOINTS}:prune": p.prune,
        f"{GRAPHS}:export": p.variants,
        f"{GRAPHS}:simplify": p.variants,
        f"{GRAPHS}:optimize": p.variants,
        f"{GRAPHS}:quantize": p.quantize.graphs,
        f"{GRAPHS}:engine": p.engine.builds,
        f"{ACCURACY}:evaluate": p.builds,
    }
    return [
        f"{stage}@{key}"
        for stage, table in tables.items()
        for key, line in table.items()
        if getattr(line, "model", key) in models
    ]


def side_by_side() -> None:
    """Build every group, one `dvc repro` for each.

    Raises:
        UserError: a group failed; its own output says why. The others were finished.
    """
    # What all others depend on; it checks params.yaml and pins/ too.
    if subprocess.run(["dvc", "repro", "--quiet", "stages/dvc.yaml"], check=False).returncode:
        raise UserError("nothing was built, see above")
    wanted = groups(params.load())
    with ThreadPoolExecutor(cores()) as pool:
        statuses = list(pool.map(_build, wanted))
    failed = [group for group, status in zip(wanted, statuses, strict=True) if status]
    if failed:
        raise UserError(f"{len(failed)} of {len(wanted)} groups failed, see above; the others are built")


def _build(stages: list[str]) -> int:
    """Status of a `dvc repro` of these stages alone; two that touch other files run at the same time."""
    return subprocess.run(["dvc", "--wait-for-lock", "repro", "--single-item", *stages], check=False).returncode
