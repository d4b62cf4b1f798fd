"""Measure every required build on the sealed split `final` of its data set, and write reports/final.md.

No stage reads that split, nor makes it where data is generated: what it says differs from the report where choices were
fitted to the evaluation data. Look seldom: a choice that follows from it uses it up. Pipelines are left out.
"""

from __future__ import annotations

import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stages import models
from stages.core import layout, params, plan
from stages.core.errors import UserError
from stages.core.files import write_text
from stages.core.params import Params
from stages.core.params.origins import Generated
from stages.core.plan import Build
from stages.core.statistics import describe_drift
from stages.corpora import manifest
from stages.evaluate import count_processes, evaluate, load_artifact
from stages.reference import write_reference
from stages.reporting.results import judge_metric

EXAMPLE = "kiln final"
HEAD = """# The final split

Other voices, sentences and seeds than all other splits, which no stage reads. Drift from the fp32 torch model, with
its interval. Each limit is the gate's.

| build | recordings | metric | baseline | value, drift and interval | loss at most | verdict |
|---|---:|---|---:|---|---:|---|
"""


def add_arguments(_parser: ArgumentParser) -> None:
    """Take none."""


def run(_arguments: Namespace) -> None:
    """Measure what has a `final` split, print each line as it is known, and write them all.

    Raises:
        UserError: a build was not made, or no data set has the split.
    """
    p = params.load()
    lines = []
    with tempfile.TemporaryDirectory() as scratch:
        for name in p.models:
            for line in measure(p, name, Path(scratch)):
                print(line)
                lines.append(line)
    if not lines:
        raise UserError(f"no data set of a required build has {manifest.FINAL}.jsonl: nothing to measure")
    write_text(layout.FINAL, HEAD + "\n".join(lines) + "\n")


def measure(p: Params, name: str, scratch: Path) -> Iterator[str]:
    """Yield a row for each gated metric of each required build of a model; none where there is no `final` split.

    scratch: where data sets are kept that are generated for this.
    """
    model, builds = p.models[name], plan.derive(p).builds
    required = {key: build for key, build in builds.items() if build.model == name and is_measured(p, build)}
    if missing := [path for b in required.values() if not (path := layout.ARTIFACTS / b.artifact).is_dir()]:
        raise UserError(f"{missing[0]} is not there: `kiln repro` makes what is measured")
    if not required or manifest.FINAL not in manifest.splits(folder := _locate_final(p, model.dataset, scratch)):
        return
    family, recordings = models.load(model.family), manifest.read(folder, manifest.FINAL)
    checkpoint = layout.checkpoint(name)
    with tempfile.TemporaryDirectory() as place:
        write_reference(family, checkpoint, recordings, Path(place))
        for key, build in required.items():
            target = p.targets[build.target]
            artifact, processes = load_artifact(layout.ARTIFACTS / build.artifact, target), count_processes(target)
            found = evaluate(family, checkpoint, recordings, artifact, Path(place), p.evaluate, processes=processes)
            gate = p.gates[target.gate]
            for metric, limit in gate.accuracy[model.family].items():
                judged = judge_metric(found["metrics"][metric], limit, gate.worst)
                if found["not_finite"]:
                    judged["verdict"] = f"fail: NaN or infinite numbers in {found['not_finite']} recordings"
                yield _row(key, metric, judged, len(recordings))


def _locate_final(p: Params, name: str, scratch: Path) -> Path:
    """Return the folder of a data set with its `final` split; a build's has none of what is generated."""
    dataset = p.datasets[name]
    if not isinstance(dataset, Generated) or manifest.FINAL not in dataset.counts:
        return layout.corpus(name)
    from stages.corpus import corpus  # half a second, which those who ask for help need not spend

    folder = scratch / name
    if not folder.exists():
        folder.mkdir()
        corpus(dataset, folder, sealed=True)
    return folder


def is_measured(p: Params, build: Build) -> bool:
    """Tell whether a build has to pass its gate, and is not exact: that says as much of any split."""
    return p.has_to_pass(build.model, build.target) and not p.targets[build.target].is_exact


def _row(build: str, metric: str, judged: dict[str, Any], recordings: int) -> str:
    baseline = "-" if judged["baseline"] is None else f"{judged['baseline']:.4f}"
    limit = f"{judged['limit']:.4g}"
    cells = (build, recordings, metric, baseline, describe_drift(judged), limit, judged["verdict"])
    return f"| {' | '.join(map(str, cells))} |"
