"""How often the gate opens for what is as it was, and closes for what became worse: redrawn from the landed counts.

    python -m benchmarks.gate_power

Needs a finished build. Each required build that is not exact is scored on all of its evaluation recordings. Then the
recordings are drawn anew, with replacement and alike for all builds of a data set, and judged as `evaluate` does, look
after look: how often does every gated metric of every build pass? And with 10 % more character errors than fp32 makes,
at random characters: how often does the metric not pass? Nothing is corrected for the number of metrics: all have to
pass, so a worse build is let through by the gate at most as often as by its own metric (an intersection-union test:
Berger, Technometrics 24, 1982). What many metrics cost is that a good build has more ways to fail: the first figure.
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

from stages import models
from stages.core import layout, params, plan, progress
from stages.core.parallel import in_shares
from stages.core.params import Params
from stages.core.params.gates import Limit, absolute_limit
from stages.core.statistics import Counts, Groups, Metric, drift, verdict
from stages.corpora import manifest
from stages.evaluate import LOOKS, load_artifact
from stages.evaluation import finite
from stages.models.protocols import Family
from stages.reporting.results import judge_metric

REDRAWS = 200
RESAMPLES = 400  # of each interval: their ends move by a twentieth of its width, as good as 2000 for a count of passes
WORSE = 0.1  # of the baseline's character errors

Pair = tuple[list[Counts], list[Counts]]


@dataclass(frozen=True)
class Scored:
    """A build's gated metrics, by name: what is counted of each recording, of the baseline and of the build."""

    build: str
    dataset: str
    worst: float | None
    limits: Mapping[str, Limit]
    metrics: Mapping[str, Metric]
    counts: Mapping[str, Pair]
    conditions: Sequence[str]


def score(p: Params) -> Iterator[Scored]:
    """Score every required build that is not exact on all of its evaluation recordings."""
    for name, build in plan.derive(p).builds.items():
        target, model = p.targets[build.target], p.models[build.model]
        gate = p.gates[target.gate]
        if not target.required or target.is_exact or build.model in gate.optional:
            continue
        family, artifact = models.load(model.family), load_artifact(build, target)
        recordings = manifest.read(layout.corpus(model.dataset), p.evaluate.split)
        checkpoint, counts = layout.checkpoint(build.model), {}
        for mode in family.MODES:
            expected = family.read_outcomes(layout.reference(build.model), mode)
            scored = in_shares(partial(finite.score, family, checkpoint, artifact, mode), recordings)
            measure = partial(family.measure, checkpoint, recordings, expected)
            counts[mode] = measure(expected), measure([outcome for outcome, _ in scored])
        limits, conditions = gate.accuracy[model.family], [r.condition for r in recordings]
        kept, metrics = _gated(family, limits, counts)
        yield Scored(name, model.dataset, gate.worst, limits, metrics, kept, conditions)
        Console().print(f"{name}: {len(recordings)} recordings scored")


def _gated(
    family: Family[Any], limits: Mapping[str, Limit], counts: Mapping[str, Pair]
) -> tuple[dict[str, Pair], dict[str, Metric]]:
    """Keep of a build's counts those of its gated metrics, by the name that params.yaml has for each."""
    kept: dict[str, Pair] = {}
    metrics: dict[str, Metric] = {}
    for mode, (before, after) in counts.items():
        for name, metric in family.METRICS.items():
            if (full := f"{mode}_{name}") in limits:
                kept[full] = [{full: one[name]} for one in before], [{full: one[name]} for one in after]
                metrics[full] = metric
    return kept, metrics


def judge(scored: Scored, counts: Mapping[str, Pair], conditions: Sequence[str]) -> dict[str, str]:
    """Return the verdict of each metric on recordings in the order in which they are scored, with their conditions."""
    found: dict[str, Any] = {}
    for share, risk in LOOKS:
        seen = math.ceil(share * len(conditions))
        settings: dict[str, Any] = {"resamples": RESAMPLES, "confidence": 1 - 0.05 * risk, "seed": 1}
        groups = Groups([str(n) for n in range(seen)], [""] * seen, conditions[:seen])
        for name, (before, after) in counts.items():
            found[name] = drift(scored.metrics[name], name, before[:seen], after[:seen], groups, **settings)
        if all(
            verdict(found[name], absolute_limit(scored.limits[name], found[name])) != "inconclusive" for name in counts
        ):
            break
    return {name: judge_metric(m, scored.limits[name], scored.worst)["verdict"] for name, m in found.items()}


def worsened(baseline: Sequence[Counts], name: str, rng: np.random.Generator) -> list[Counts]:
    """Return the baseline's counts with about WORSE times as many errors more, at characters at random."""
    errors, lengths = (np.array([of_one[name][side] for of_one in baseline]) for side in (0, 1))
    added = rng.poisson(WORSE * errors.sum() * lengths / lengths.sum())
    return [{name: (e + a, n)} for e, a, n in zip(errors, added, lengths, strict=True)]


def power(all_scored: Sequence[Scored], redraws: int) -> tuple[float, dict[tuple[str, str], float], dict[str, float]]:
    """Return how often the whole gate opens, each metric of each build passes, and a worse CER is refused, by build."""
    rng, opened = np.random.default_rng(0), 0
    passed: dict[tuple[str, str], float] = {}
    refused: dict[str, float] = {}
    for _ in progress.each(range(redraws), "draws"):
        is_open, indices = True, dict[str, NDArray[np.intp]]()
        for scored in all_scored:
            count = len(scored.conditions)
            drawn = indices.setdefault(scored.dataset, rng.integers(count, size=count))
            conditions = [scored.conditions[i] for i in drawn]
            counts = {name: (_take(old, drawn), _take(new, drawn)) for name, (old, new) in scored.counts.items()}
            for name, found in judge(scored, counts, conditions).items():
                passed[scored.build, name] = passed.get((scored.build, name), 0) + (found == "pass") / redraws
                is_open &= found == "pass"
            for name in [name for name in counts if name.endswith("_cer")][:1]:
                worse = {name: (counts[name][0], worsened(counts[name][0], name, rng))}
                is_refused = judge(scored, worse, conditions)[name] != "pass"
                refused[scored.build] = refused.get(scored.build, 0) + is_refused / redraws
        opened += is_open
    return opened / redraws, passed, refused


def _take(counts: Sequence[Counts], drawn: NDArray[np.intp]) -> list[Counts]:
    return [counts[i] for i in drawn]


def main() -> None:
    """Print how often each metric passes and a worse CER is refused, and how often the whole gate opens."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--redraws", type=int, default=REDRAWS, help="of the evaluation data")
    redraws = parser.parse_args().redraws
    opened, passed, refused = power(list(score(params.load())), redraws)
    table = Table(title=f"{redraws} draws of the evaluation data")
    for heading in ("build", "metric", "passes", "CER + 10 % refused"):
        table.add_column(heading)
    for (build, name), share in passed.items():
        table.add_row(build, name, f"{share:.3f}", f"{refused[build]:.3f}" if name.endswith("_cer") else "")
    Console().print(table)
    Console().print(f"the whole gate opens in {opened:.3f} of draws")


if __name__ == "__main__":
    main()
