"""A repository that has one model alone: the commands and stages that take it from `pin` to a release.

Tests and `make scale` run replicas through it, each in a folder of its own, with the settings of the real params.yaml
and little data.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from stages import package
from stages.core import layout, plan
from stages.core.files import read_json
from stages.core.params import PARAMS, Params
from stages.models.accuracy import EXACTNESS

LINES = YAML()
LINES.width = 1000


@contextmanager
def settings(origin: Path = PARAMS, place: Path = PARAMS) -> Iterator[Any]:
    """Read a params.yaml, yield what it holds for the block to change, and write the result to `place`."""
    found = LINES.load(origin)
    yield found
    LINES.dump(found, place)


def hurry(found: Any, items: Mapping[str, int], changes: Mapping[str, Mapping[str, Any]]) -> None:
    """Shrink the settings for a quick run: few short recordings from each data set that a seed makes, and `changes`.

    Limits that so few cannot resolve, all but those of exactness, become the whole of what is measured.

    items: recordings of each split. changes: by section of params.yaml; those to `prune` are made for every family.
    """
    for gate in found["gates"].values():
        for limits in gate["accuracy"].values():
            limits.update({metric: 1.0 for metric in limits if not metric.endswith(EXACTNESS)})
    for dataset in found["datasets"].values():
        if "items" in dataset:
            dataset.update(items=dict(items), long=0)
    for name, change in changes.items():
        for section in found["prune"].values() if name == "prune" else [found[name]]:
            section.update(change)


def remove(found: Any, name: str) -> None:
    """Remove a model, so that `add` has something to add, and all pipelines, which may need it."""
    found["pipelines"] = {}
    found["models"].pop(name, None)


def leave_only(found: Any, name: str) -> None:
    """Remove all other models: they are neither pinned nor built here."""
    for other in [other for other in found["models"] if other != name]:
        del found["models"][other]


def steps(p: Params, name: str) -> Iterator[tuple[str, str | None]]:
    """Yield every stage and its key, in order, up to the summary of all builds."""
    tables = plan.derive(p)
    stages: dict[str, Iterable[str | None]] = {
        "environment": [None],
        "fetch": [name],
        "corpus": [p.models[name].dataset],
        "prune": tables.prune,
        "export": tables.variants,
        "simplify": tables.variants,
        "optimize": tables.variants,
        "quantize": tables.quantize,
        "engine": tables.engine,
        "benchmark": tables.builds,
        "reference": [name],
        "evaluate": tables.builds,
        "report": tables.reports,
        "summary": [None],
    }
    for stage, keys in stages.items():
        for key in keys:
            yield stage, key


def release(p: Params) -> dict[str, Path]:
    """Fill a release folder for each target, as `package` does for builds that passed; random weights never pass."""
    summary, folders = read_json(layout.SUMMARY), {}
    for key, build in plan.derive(p).builds.items():
        folder = folders[build.target] = layout.RELEASE / key
        folder.mkdir(parents=True)
        checkpoint = layout.checkpoint(build.model, p.targets[build.target].variant)
        facts = package.gather(summary, key, p, checkpoint)
        package.package(layout.ARTIFACTS / build.artifact, checkpoint, facts, folder)
    return folders
