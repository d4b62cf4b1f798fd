"""How often the gate opens for what is as it was, and closes for what became worse: redrawn from the landed counts.

    python -m benchmarks.gate_power

Needs a finished build. Each required build and pipeline that is not exact is scored on all of its evaluation
recordings. Then the speakers are drawn anew, with replacement and alike for all builds of a data set, and judged as
`evaluate` does, look after look: how often does every gated metric of every build pass? And with 10 % more character
errors than fp32 makes, at random characters: how often does the metric not pass? What is exact is not estimated from
recordings and passes in every draw, and speed is not redrawn.

Nothing is corrected for the number of metrics: all have to pass, so a worse build is let through by the gate at most as
often as by its own metric (an intersection-union test: Berger, Technometrics 24, 1982). What many metrics cost is that
a good build has more ways to fail: the first figure.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from stages import models, pipeline
from stages.core import layout, params, plan, progress
from stages.core.parallel import in_shares
from stages.core.params import PIPELINE, Params
from stages.core.params.gates import Gate, Limit
from stages.core.plan import PipelineBuild
from stages.core.statistics import Floats, Groups, Metric, binomial_bounds, paired_drift
from stages.corpora import manifest
from stages.corpora.manifest import Recording
from stages.evaluate import LOOKS, ONE_LOOK, is_sure, load_artifact, looks
from stages.evaluation import finite
from stages.evaluation.groups import group
from stages.models import accuracy
from stages.pipelines import measurement
from stages.reporting.results import judge_metric

REDRAWS = 1000
RESAMPLES = 400  # of each interval: their ends move by a twentieth of its width, as good as 2000 for a count of passes
WORSE = 0.1  # of the baseline's character errors

Columns = tuple[Floats, Floats, Floats, Floats]
"""Numerators and denominators of the baseline, then of the build: (recordings,) each."""


@dataclass(frozen=True)
class Scored:
    """A build's gated metrics, by name: what is counted of each recording, of the baseline and of the build.

    looks: after what share of the recordings it is seen whether more are needed, and with what confidence.
    """

    build: str
    dataset: str
    looks: Sequence[tuple[float, float]]
    worst: float | None
    limits: Mapping[str, Limit]
    metrics: Mapping[str, Metric]
    columns: Mapping[str, Columns]
    groups: Groups


def score(p: Params) -> Iterator[Scored]:
    """Score every required build and pipeline that is not exact on all of its evaluation recordings."""
    for name, build in plan.derive(p).builds.items():
        if (gate := _gate(p, build.target, build.model)) is None:
            continue
        target, model = p.targets[build.target], p.models[build.model]
        family, artifact = models.load(model.family), load_artifact(layout.ARTIFACTS / build.artifact, target)
        recordings = manifest.read(layout.corpus(model.dataset), p.evaluate.split)
        checkpoint, columns, metrics = layout.checkpoint(build.model), dict[str, Columns](), dict[str, Metric]()
        scored = in_shares(partial(finite.score, family, checkpoint, artifact), recordings)
        for mode in family.MODES:
            expected = family.read_outcomes(layout.reference(build.model), mode)
            measure = partial(family.measure, checkpoint, recordings, expected)
            before, after = measure(expected), measure([outcomes[mode] for outcomes, _ in scored])
            for metric in family.METRICS:
                columns[f"{mode}_{metric}"] = _columns(before, after, metric)
                metrics[f"{mode}_{metric}"] = family.METRICS[metric]
        limits, groups = gate.accuracy[model.family], group(recordings)
        yield Scored(name, model.dataset, looks(LOOKS, p.evaluate), gate.worst, limits, metrics, columns, groups)


def score_pipelines(p: Params) -> Iterator[Scored]:
    """Run every required pipeline that is not exact over all of its evaluation recordings."""
    for name, line in plan.derive(p).pipelines.items():
        if (gate := _gate(p, line.target, line.pipeline)) is not None:
            recordings = manifest.read(layout.corpus(line.dataset), p.evaluate.split)
            limits, columns = gate.accuracy[PIPELINE], _run_pipeline(p, line, recordings)
            groups, metrics = group(recordings), accuracy.PIPELINE
            yield Scored(name, line.dataset, looks(ONE_LOOK, p.evaluate), gate.worst, limits, metrics, columns, groups)


def _run_pipeline(p: Params, line: PipelineBuild, recordings: Sequence[Recording]) -> dict[str, Columns]:
    """Count every metric of a pipeline on recordings, by name."""
    baseline = pipeline.load(p, line, lambda model: layout.graphs(model, "dense", "export"), "onnxruntime")
    target = pipeline.load(p, line, lambda model: layout.ARTIFACTS / model / line.artifact, "onnxruntime")
    heard = pipeline.run_both((baseline, target), recordings, p.pipeline, busy=1)
    before, after = ([measurement.counts(h, side) for h in heard] for side in (0, 1))
    return {metric: _columns(before, after, metric) for metric in accuracy.PIPELINE}


def _gate(p: Params, target: str, name: str) -> Gate | None:
    """Return the gate that a model or pipeline has to pass on a target, None if it is exact or need not pass."""
    has_to = p.has_to_pass(name, target) and not p.targets[target].is_exact
    return p.gates[p.targets[target].gate] if has_to else None


def _columns(before: Sequence[Any], after: Sequence[Any], name: str) -> Columns:
    old, new = (np.array([of_one[name] for of_one in counts], float).T for counts in (before, after))
    return old[0], old[1], new[0], new[1]


def redraw(scored: Scored, rng: np.random.Generator) -> NDArray[np.intp]:
    """Draw as many clusters anew as there are, and return the indices of their recordings in a mixed order."""
    names, which = np.unique(np.array(scored.groups.clusters), return_inverse=True)
    own = np.split(np.argsort(which, kind="stable"), np.cumsum(np.bincount(which))[:-1])
    drawn = np.concatenate([own[i] for i in rng.integers(len(names), size=len(names))])
    return rng.permutation(drawn)


def judge(scored: Scored, columns: Mapping[str, Columns], groups: Groups) -> dict[str, str]:
    """Return the verdict of each gated metric on recordings in the order in which they are scored."""
    found: dict[str, Any] = {}
    for share, confidence in scored.looks:
        seen = math.ceil(share * len(groups.clusters))
        settings: dict[str, Any] = {"resamples": RESAMPLES, "confidence": confidence, "seed": 1}
        so_far = Groups(groups.clusters[:seen], groups.speakers[:seen], groups.conditions[:seen])
        for name, whole in columns.items():
            found[name] = paired_drift(scored.metrics[name], [c[:seen] for c in whole], so_far, **settings)
        if is_sure(found, {name: scored.limits[name] for name in columns}):
            break
    return {name: judge_metric(m, scored.limits[name], scored.worst)["verdict"] for name, m in found.items()}


def worsened(columns: Columns, rng: np.random.Generator) -> Columns:
    """Return the baseline and, as the build, about WORSE times as many errors more, at characters at random."""
    errors, lengths = columns[:2]
    return errors, lengths, errors + rng.poisson(WORSE * errors.sum() * lengths / lengths.sum()), lengths


@dataclass
class Power:
    """How many draws opened the whole gate, passed each metric of each build, and refused each worse CER."""

    opened: int
    passed: dict[tuple[str, str], int]
    refused: dict[tuple[str, str], int]


def power(all_scored: Sequence[Scored], redraws: int) -> Power:
    """Draw the evaluation data of all builds anew, and judge them and their baselines made worse."""
    rng, found = np.random.default_rng(0), Power(0, {}, {})
    for _ in progress.each(range(redraws), "draws"):
        is_open, drawn = True, dict[str, NDArray[np.intp]]()
        for scored in all_scored:
            indices = drawn.setdefault(scored.dataset, redraw(scored, rng))
            groups = _take_groups(scored.groups, indices)
            columns = {name: _take(scored.columns[name], indices) for name in scored.limits}
            for name, judged in judge(scored, columns, groups).items():
                found.passed[scored.build, name] = found.passed.get((scored.build, name), 0) + (judged == "pass")
                is_open &= judged == "pass"
            for name in [name for name in columns if name.endswith("_cer")]:
                worse = judge(scored, {name: worsened(columns[name], rng)}, groups)[name]
                found.refused[scored.build, name] = found.refused.get((scored.build, name), 0) + (worse != "pass")
        found.opened += is_open
    return found


def _take(columns: Columns, indices: NDArray[np.intp]) -> Columns:
    before, length, after, other = (column[indices] for column in columns)
    return before, length, after, other


def _take_groups(groups: Groups, indices: NDArray[np.intp]) -> Groups:
    """Take the groups of recordings that were drawn; a cluster that was drawn twice is two, of one name each."""
    again = _occurrence(indices)
    clusters = [f"{groups.clusters[i]} {n}" for i, n in zip(indices, again, strict=True)]
    conditions = [groups.conditions[i] for i in indices]
    return Groups(clusters, clusters if any(groups.speakers) else [""] * len(indices), conditions)


def _occurrence(indices: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return of each index how often it stood before: recordings of one cluster are drawn together."""
    order = np.argsort(indices, kind="stable")
    first = np.searchsorted(indices[order], indices[order])
    occurrence = np.empty(len(indices), np.intp)
    occurrence[order] = np.arange(len(indices)) - first
    return occurrence


def _share(count: int, redraws: int) -> str:
    """Return a share of the draws with its exact interval."""
    low, high = binomial_bounds(count, redraws, 0.95)
    return f"{count / redraws:.3f} [{low:.3f}, {high:.3f}]"


def main() -> None:
    """Print how often each metric passes and a worse CER is refused, and how often the whole gate opens."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--redraws", type=int, default=REDRAWS, help="of the evaluation data")
    redraws, p, all_scored = parser.parse_args().redraws, params.load(), list[Scored]()
    for scored in (*score(p), *score_pipelines(p)):
        Console().print(f"{scored.build}: {len(scored.groups.clusters)} recordings scored")
        all_scored.append(scored)
    found = power(all_scored, redraws)
    table = Table(title=f"{redraws} draws of the evaluation data")
    for heading in ("build", "metric", "passes", "CER + 10 % refused"):
        table.add_column(heading)
    for key, count in found.passed.items():
        table.add_row(*key, _share(count, redraws), _share(found.refused[key], redraws) if key in found.refused else "")
    Console().print(table)
    Console().print(f"the whole gate opens in {_share(found.opened, redraws)} of draws")


if __name__ == "__main__":
    main()
