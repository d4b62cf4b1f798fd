"""A repository that has one model alone: the commands and stages that take it from `pin` to a release.

Tests and `make scale` run replicas through it, each in a folder of its own, with the settings of the real params.yaml
and little data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from stages import package
from stages.core import layout
from stages.core.files import read_json
from stages.core.params import PARAMS, Params

LINES = YAML()
LINES.width = 1000  # `add` wants a line of a table to stay one


@contextmanager
def settings(origin: Path = PARAMS, place: Path = PARAMS) -> Iterator[Any]:
    """Give what a params.yaml holds, to be changed, and write it to `place`."""
    found = LINES.load(origin)
    yield found
    LINES.dump(found, place)


def hurry(found: Any, items: Mapping[str, int], changes: Mapping[str, Mapping[str, Any]]) -> None:
    """Have every data set that is made from a seed hold few items, and change sections; in `prune` those of all models.

    items: recordings of each split.
    """
    for dataset in found["datasets"].values():
        if "items" in dataset:
            dataset["items"] = dict(items)
    for name, change in changes.items():
        for section in found["prune"].values() if name == "prune" else [found[name]]:
            section.update(change)


def without_builds(found: Any, name: str) -> None:
    """Take a model's lines out of every table, so that `add` has something to add."""
    _drop(found, lambda model: model == name)


def leave_only(found: Any, name: str) -> None:
    """Take all other models out, which are neither pinned nor built here."""
    for table in (found["models"], found["prune"]):
        for other in [other for other in table if other != name]:
            del table[other]
    _drop(found, lambda model: model != name)


def _drop(found: Any, unwanted: Callable[[str], bool]) -> None:
    found["pipeline"]["builds"] = {}  # which needs several models
    for table in (found["variants"], found["builds"], found["quantize"]["graphs"], found["engine"]["builds"]):
        for key in [key for key, line in table.items() if unwanted(line["model"])]:
            del table[key]


def steps(p: Params, name: str) -> Iterator[tuple[str, str | None]]:
    """Yield every stage and its key, in order, up to the summary of all builds."""
    targets = dict.fromkeys(build.target for build in p.builds.values())
    pruned = [line.model for line in p.variants.values() if line.variant == "pruned"]
    stages: dict[str, Sequence[str | None]] = {
        "environment": [None],
        "fetch": [name],
        "corpus": [p.models[name].dataset],
        "reference": [name],
        "prune": pruned,
        "export": list(p.variants),
        "simplify": list(p.variants),
        "optimize": list(p.variants),
        "quantize": list(p.quantize.graphs),
        "evaluate": list(p.builds),
        "benchmark": list(p.builds),
        "report": list(targets),
        "summary": [None],
    }
    for stage, keys in stages.items():
        for key in keys:
            yield stage, key


def release(p: Params) -> dict[str, Path]:
    """Fill a release folder for each target as `package` does, without the gate, which keeps random weights back."""
    summary, folders = read_json(layout.SUMMARY), {}
    for key, build in p.builds.items():
        folder = folders[build.target] = layout.RELEASE / key
        folder.mkdir(parents=True)
        checkpoint = layout.checkpoint(build.model, p.targets[build.target].variant)
        record = package.provenance(summary, key, p.models[build.model])
        package.package(layout.ARTIFACTS / build.artifact, checkpoint, record, folder)
    return folders
