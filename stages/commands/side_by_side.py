"""`python -m stages side-by-side`: a first build, with all models at the same time.

`dvc repro` runs one stage after another, and most keep one core busy. Models share nothing but data sets up to their
measured accuracy, so each gets a `dvc repro` of its own, and then each composed system, one on a core. What needs the
machine for itself is left out: an ordinary `dvc repro` does that afterwards.
"""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from stages.core import params
from stages.core.errors import UserError
from stages.core.parallel import cores
from stages.core.params import Params

CHECKPOINTS, GRAPHS, ACCURACY, CHAIN = (
    f"stages/dag/{part}/dvc.yaml" for part in ("checkpoints", "graphs", "accuracy", "chain")
)
Group = list[str]
"""DVC's names of stages, each after what it needs."""


def waves(p: Params) -> list[list[Group]]:
    """Groups that share nothing, wave after wave: data sets of several models, models, composed systems."""
    of = {name: {model.dataset} for name, model in p.models.items()}
    for name, settings in p.prune.items():
        of[name].add(settings.dataset)
    users = Counter(dataset for datasets in of.values() for dataset in datasets)
    corpus = {dataset: f"{CHECKPOINTS}:corpus@{dataset}" for dataset in p.datasets}
    shared = [[stage] for dataset, stage in corpus.items() if users[dataset] > 1]
    unused = [[stage] for dataset, stage in corpus.items() if users[dataset] == 0]
    models = [
        [*(corpus[dataset] for dataset in sorted(datasets) if users[dataset] == 1), *_stages(p, name)]
        for name, datasets in of.items()
    ]
    return [shared, [*models, *unused], [[f"{CHAIN}:pipeline@{key}"] for key in p.pipeline.builds]]


def _stages(p: Params, model: str) -> Group:
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
        if getattr(line, "model", key) == model
    ]


def side_by_side() -> None:
    """Build every group of a wave, one `dvc repro` for each, before the next wave.

    Raises:
        UserError: a group failed; its own output says why. The others of its wave were finished.
    """
    # What all others depend on; it checks params.yaml and pins/ too.
    if subprocess.run(["dvc", "repro", "--quiet", "stages/dvc.yaml"], check=False).returncode:
        raise UserError("nothing was built, see above")
    shared, models, systems = waves(params.load())
    # More models than cores: the last of them would leave cores idle. A system is timed, and gets a core for itself.
    for wave, workers in ((shared, cores()), (models, 2 * cores() + 1), (systems, cores())):
        with ThreadPoolExecutor(workers) as pool:
            failed = sum(map(bool, pool.map(_build, wave)))
        if failed:
            raise UserError(f"{failed} of {len(wave)} groups of stages failed, see above; the others are built")


def _build(stages: Sequence[str]) -> int:
    """Status of a `dvc repro` of these stages alone; those that touch other files run at the same time."""
    command = ["dvc", "--wait-for-lock", "repro", "--single-item", *stages]
    # More threads than cores: those of torch that wait for each other sleep, or they take half of all cores' time.
    return subprocess.run(command, check=False, env=os.environ | {"OMP_WAIT_POLICY": "passive"}).returncode
