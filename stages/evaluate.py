"""Stage `evaluate`: accuracy of one build against the fp32 torch baseline and the known truth, with intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from stages import models, runtimes
from stages.core import graphs, layout, params, plan
from stages.core.errors import entrypoint, key_from
from stages.core.files import read_json, write_json
from stages.core.parallel import in_shares
from stages.core.params import EvaluateParams, Target
from stages.core.params.gates import Limit, absolute_limit
from stages.core.params.section import FORKABLE
from stages.core.parity import LoadedArtifact
from stages.core.statistics import Counts, Groups, describe_drift, drift, verdict
from stages.corpora import manifest
from stages.corpora.manifest import Recording
from stages.evaluation import exactness, finite
from stages.evaluation.groups import group
from stages.models.protocols import Family
from stages.models.shared.checkpoint import torch_artifact

LOOKS = ((0.25, 0.1), (0.5, 0.2), (1.0, 0.7))
"""After what share of the recordings it is seen whether more are needed, and the share of the risk of each look.

Several looks at 5 % each would be wrong more often than 5 %. So the risk is shared out, and all looks together keep it
by Bonferroni's inequality: a spending of alpha as in Lan & DeMets, "Discrete sequential boundaries for clinical
trials", Biometrika 70, 1983. Most is left to the last look, which close cases reach.
"""
ONE_LOOK = ((1.0, 1.0),)


def looks(shares: Sequence[tuple[float, float]], settings: EvaluateParams) -> list[tuple[float, float]]:
    """Return after what share of the recordings it is seen whether more are needed, and with what confidence.

    shares: those of the recordings, and of the risk.
    """
    return [(share, 1 - risk * (1 - settings.confidence)) for share, risk in shares]


def evaluate(
    family: Family[Any],
    checkpoint: Path,
    recordings: Sequence[Recording],
    artifact: LoadedArtifact,
    reference: Path,
    settings: EvaluateParams,
    *,
    limits: Mapping[str, Limit] | None = None,
    processes: int | None = None,
) -> dict[str, Any]:
    """Return every metric of the family in every mode, and the headline metric of each recording.

    Recordings are scored in an order that mixes them, until all limits are surely kept or one is not, or all are used.

    limits: by metric; without, all recordings are scored, and where none is of what is counted here, those that
    `exactness` compares. processes: how many score, one for each core by default.

    Returns:
        recordings: how many were scored, of `available`. not_finite: in how many the artifact gave NaN or an infinite
        number, in any mode. metrics, by_recording.
    """
    order = np.random.default_rng(settings.seed).permutation(len(recordings))
    limits = limits and _select_counted(family, limits)
    if limits == {}:
        order = order[exactness.choose([recordings[i] for i in order])]
    mixed = [recordings[i] for i in order]
    read = {mode: family.read_outcomes(reference, mode) for mode in family.MODES}
    expected = {mode: [outcomes[i] for i in order] for mode, outcomes in read.items()}
    scored: list[tuple[dict[str, Any], bool]] = []
    metrics: dict[str, Any] = {}
    _import_once(family, checkpoint)
    for share, confidence in looks(LOOKS if limits else ONE_LOOK, settings):
        count = math.ceil(share * len(mixed))
        work = partial(finite.score, family, checkpoint, artifact)
        scored += in_shares(work, mixed[len(scored) : count], processes)
        counts = _counts(family, checkpoint, mixed[:count], expected, scored)
        metrics = _metrics(family, group(mixed[:count]), counts, settings, confidence)
        if limits and is_sure(metrics, limits):
            break
    return {
        "recordings": count,
        "available": len(recordings),
        "not_finite": sum(not is_finite for _, is_finite in scored),
        "metrics": metrics,
        "by_recording": _by_recording(family, mixed[:count], counts),
    }


def _import_once(family: Family[Any], checkpoint: Path) -> None:
    """Import what scoring needs, so that no forked process has to; torch's threads, which a fork loses, stay out."""
    import torch

    torch.set_num_threads(1)
    family.load(checkpoint)


def count_processes(target: Target) -> int | None:
    """Return how many processes may score with what is loaded for a target: None where each core may have one."""
    return None if target.runtime in FORKABLE else 1


def load_artifact(folder: Path, target: Target) -> LoadedArtifact:
    """Load what a target runs of a folder, on one thread."""
    graph_set = graphs.read(folder)
    return graph_set, runtimes.load(folder, graph_set, target.runtime, threads=1)


def _counts(
    family: Family[Any],
    checkpoint: Path,
    recordings: Sequence[Recording],
    expected: Mapping[str, Sequence[Any]],
    scored: Sequence[tuple[Mapping[str, Any], bool]],
) -> dict[str, tuple[list[Counts], list[Counts]]]:
    """Return what the family counts of the recordings, by mode: of the baseline and of the artifact."""
    counts = {}
    for mode, of_all in expected.items():
        wanted = of_all[: len(recordings)]
        measure = partial(family.measure, checkpoint, recordings, wanted)
        counts[mode] = measure(wanted), measure([outcomes[mode] for outcomes, _ in scored])
    return counts


def _metrics(
    family: Family[Any],
    groups: Groups,
    counts: Mapping[str, tuple[list[Counts], list[Counts]]],
    settings: EvaluateParams,
    confidence: float,
) -> dict[str, Any]:
    bootstrap: dict[str, Any] = settings.model_dump(include={"resamples", "seed"}) | {"confidence": confidence}
    return {
        f"{mode}_{name}": drift(metric, name, before, after, groups, **bootstrap)
        for mode, (before, after) in counts.items()
        for name, metric in family.METRICS.items()
    }


def _select_counted(family: Family[Any], limits: Mapping[str, Limit]) -> dict[str, Limit]:
    """Select the limits of what the family counts: those on how exact outputs are it does not know."""
    names = {f"{mode}_{name}" for mode in family.MODES for name in family.METRICS}
    return {name: limit for name, limit in limits.items() if name in names}


def is_sure(metrics: Mapping[str, Any], limits: Mapping[str, Limit]) -> bool:
    """Tell whether no more recordings are needed: one limit is surely not kept, or all surely are.

    The build fails by the one, whatever is to be said of the others.
    """
    verdicts = {verdict(metrics[name], absolute_limit(limit, metrics[name])) for name, limit in limits.items()}
    return "fail" in verdicts or "inconclusive" not in verdicts


def _by_recording(
    family: Family[Any],
    recordings: Sequence[Recording],
    counts: Mapping[str, tuple[list[Counts], list[Counts]]],
) -> dict[str, dict[str, float]]:
    """Return the headline metric of each recording in each mode that has something to measure in it."""
    found: dict[str, dict[str, float]] = {r.id: {} for r in recordings}
    for mode, (_, value) in counts.items():
        for recording, of_one in zip(recordings, value, strict=True):
            numerator, denominator = of_one[family.HEADLINE]
            if denominator:
                found[recording.id][f"{mode}_{family.HEADLINE}"] = numerator / denominator
    return found


def main(argv: Sequence[str]) -> None:
    """Run `python -m stages.evaluate MODEL-TARGET`."""
    p = params.load()
    builds = plan.derive(p).builds
    name = key_from(argv, "evaluate", builds)
    build, target, model = builds[name], p.targets[builds[name].target], p.models[builds[name].model]
    runtimes.enter(target.runtime, "evaluate", argv)
    why = runtimes.why_unavailable(target.runtime, layout.ARTIFACTS / build.artifact)
    result: dict[str, Any] = {"unavailable": why}
    if why is None:
        family = models.load(model.family)
        artifact = load_artifact(layout.ARTIFACTS / build.artifact, target)
        recordings = manifest.read(layout.corpus(model.dataset), p.evaluate.split)
        checkpoint, reference = layout.checkpoint(build.model), layout.reference(build.model)
        result |= {"headline": f"{family.MODES[0]}_{family.HEADLINE}", "baseline": read_json(layout.quality(reference))}
        result |= evaluate(
            family,
            checkpoint,
            recordings,
            artifact,
            reference,
            p.evaluate,
            limits=p.gates[target.gate].accuracy[model.family],
            processes=count_processes(target),
        )
        if target.is_exact:
            exact = torch_artifact(family, family.load(checkpoint))
            scored = [recording for recording in recordings if recording.id in result["by_recording"]]
            scored = [scored[place] for place in exactness.choose(scored)]
            result["metrics"] |= exactness.measure(family, checkpoint, exact, artifact, scored)
    write_json(layout.measurements(build.target, build.model) / "accuracy.json", result)
    print(f"{name}: {why or describe_drift(result['metrics'][result['headline']])}")


if __name__ == "__main__":
    entrypoint(main)
