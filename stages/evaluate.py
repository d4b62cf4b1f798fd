"""Stage `evaluate`: accuracy of one build against the fp32 torch baseline and the known truth, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from stages import models, runtimes
from stages.core import graphs, layout, params, plan
from stages.core.errors import entrypoint, key_from
from stages.core.files import write_json
from stages.core.parallel import in_shares
from stages.core.params import EvaluateParams
from stages.core.parity import LoadedArtifact
from stages.core.statistics import describe_drift, drift
from stages.corpora import manifest
from stages.corpora.manifest import Recording
from stages.evaluation import exactness, finite
from stages.evaluation.groups import group
from stages.models.protocols import Family
from stages.models.shared.checkpoint import torch_artifact


def evaluate(
    family: Family[Any],
    checkpoint: Path,
    recordings: Sequence[Recording],
    artifact: LoadedArtifact,
    reference: Path,
    settings: EvaluateParams,
    *,
    processes: int | None = None,
) -> dict[str, Any]:
    """Return every metric of the family in every mode, and the headline metric of each recording.

    not_finite: in how many recordings the artifact gave NaN or an infinite number, in any mode.

    processes: how many score, one for each core by default.
    """
    metrics: dict[str, Any] = {}
    groups, broken = group(recordings), set[str]()
    by_recording: dict[str, dict[str, float]] = {r.id: {} for r in recordings}
    for mode in family.MODES:
        expected = family.read_outcomes(reference, mode)
        scored = in_shares(partial(finite.score, family, checkpoint, artifact, mode), recordings, processes)
        broken |= {recording.id for recording, (_, is_finite) in zip(recordings, scored, strict=True) if not is_finite}
        baseline = family.measure(checkpoint, recordings, expected, expected)
        value = family.measure(checkpoint, recordings, expected, [outcome for outcome, _ in scored])
        bootstrap = settings.model_dump(include={"resamples", "confidence", "seed"})
        for name, metric in family.METRICS.items():
            metrics[f"{mode}_{name}"] = drift(metric, name, baseline, value, groups, **bootstrap)
        for recording, counts in zip(recordings, value, strict=True):
            numerator, denominator = counts[family.HEADLINE]
            if denominator:
                by_recording[recording.id][f"{mode}_{family.HEADLINE}"] = numerator / denominator
    counted = {"recordings": len(recordings), "not_finite": len(broken)}
    return counted | {"metrics": metrics, "by_recording": by_recording}


def main(argv: Sequence[str]) -> None:
    """`python -m stages.evaluate MODEL-TARGET`."""
    p = params.load()
    builds = plan.derive(p).builds
    name = key_from(argv, "evaluate", builds)
    build, target, model = builds[name], p.targets[builds[name].target], p.models[builds[name].model]
    why = runtimes.why_unavailable(target.runtime)
    result: dict[str, Any] = {"unavailable": why}
    if why is None:
        family = models.load(model.family)
        folder = layout.ARTIFACTS / build.artifact
        graph_set = graphs.read(folder)
        artifact = (graph_set, runtimes.load(folder, graph_set, target.runtime, threads=1))
        recordings = manifest.read(layout.corpus(model.dataset), p.evaluate.split)
        checkpoint, reference = layout.checkpoint(build.model), layout.reference(build.model)
        processes = None if target.runtime == "onnxruntime" else 1  # a CUDA context does not survive a fork
        result |= {"headline": f"{family.MODES[0]}_{family.HEADLINE}"}
        result |= evaluate(family, checkpoint, recordings, artifact, reference, p.evaluate, processes=processes)
        if target.is_exact:
            torch_model = torch_artifact(family, family.load(checkpoint))
            result["metrics"] |= exactness.measure(family, checkpoint, torch_model, artifact, recordings)
    write_json(layout.measurements(build.target, build.model) / "accuracy.json", result)
    print(f"{name}: {why or describe_drift(result['metrics'][result['headline']])}")


if __name__ == "__main__":
    entrypoint(main)
