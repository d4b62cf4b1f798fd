"""Stage `prune`: a checkpoint with narrower layers, refitted and distilled until the tuning split says enough."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from stages import models
from stages.core import layout, params, plan, progress
from stages.core.errors import UserError, entrypoint, key_from
from stages.core.files import new_folder, write_json
from stages.core.params.prune import PruneParams
from stages.core.statistics import mean_of_clusters
from stages.corpora import manifest
from stages.corpora.manifest import Recording
from stages.evaluation.groups import group
from stages.models.protocols import Prunable
from stages.models.shared import checkpoint, weights
from stages.pruning import allocation, narrowing, recovery

Accuracy = Callable[[torch.nn.Module], float]
"""The family's headline metric of a model, the mean over speakers."""

RECORD = "prune.json"
TOLERANCE = 0.01  # of what `ratio_of` says, between what was asked for and what the widths can give


@dataclass(frozen=True)
class Goal:
    """How much of a model is to go.

    steps: which widths may change, and what each stays a multiple of. parameters: all of the model; prunable: those
    that go with those widths. removed, tolerance: shares of all parameters, whatever `ratio_of` the ratio is.
    """

    steps: dict[str, int]
    parameters: int
    prunable: int
    removed: float
    tolerance: float


def goal(family: Prunable[Any, Any], model: torch.nn.Module, config: dict[str, Any], settings: PruneParams) -> Goal:
    """Return how much of a model is to go.

    model: its weights are not read. config: its own.

    Raises:
        UserError: nothing of it can be cut, or less than is wanted.
    """
    steps, count = _steps(family, model, settings), family.counter(config)
    widths, total = family.widths(model), count({})
    prunable = total - count(dict.fromkeys(steps, 0))
    whole = total if settings.ratio_of == "all" else prunable
    most = total - count({key: min(step, widths[key]) for key, step in steps.items()})
    if most < settings.ratio * whole:
        more = "" if settings.heads or not _heads(widths) else "; heads: true adds heads"
        raise UserError(
            f"prune: {' and '.join(steps)} hold {prunable / total:.1%} of {total:,} parameters, of which "
            f"{most / prunable:.1%} can go; found ratio: {settings.ratio} of {settings.ratio_of}, wanted at most "
            f"{_rounded_down(most / total)} of all or {_rounded_down(most / prunable)} of prunable{more}; "
            "see prune.MODEL in params.yaml"
        )
    return Goal(steps, total, prunable, settings.ratio * whole / total, TOLERANCE * whole / total)


def _rounded_down(share: float) -> float:
    return int(1000 * share) / 1000


def prune(
    family: Prunable[Any, Any],
    model: torch.nn.Module,
    config: dict[str, Any],
    calibration: Any,
    tuning: Any,
    settings: PruneParams,
    *,
    accuracy: Accuracy,
) -> tuple[torch.nn.Module, dict[str, Any], dict[str, Any]]:
    """Prune a model by narrower layers, refit and distillation. The same inputs give the same weights.

    calibration, tuning: what the family's `calibration` gives of either split.
    accuracy: measured of the dense model and after each part of the recovery, for the record.

    Returns:
        The smaller model, its config.yaml and a record of what was done.

    Raises:
        UserError: no widths remove what `settings` want, or there is too little to train on.
    """
    wanted = goal(family, model, config, settings)
    small_config, sensitivity = _allocate(family, model, config, calibration, tuning, settings, wanted=wanted)
    _check_removed(model, checkpoint.weightless(family.build, small_config), settings, wanted)
    with recovery.fixed_threads(recovery.REFIT_THREADS):
        small, refit = family.cut(model, small_config, calibration, settings.criterion, settings.refit_damping)
        far = functools.partial(recovery.mean_loss, family.distillation(small, model, tuning))
        metric = {"dense": accuracy(model), "cut": accuracy(small)}
        as_cut, errors = far(), refit()
        metric["refit"] = accuracy(small)
    with recovery.fixed_threads(recovery.DISTILL_THREADS):
        after_refit = far()
        by_loss = settings.validate_by == "loss"
        validate = far if by_loss else lambda: _as_loss(family, accuracy(small))
        before = after_refit if by_loss else _as_loss(family, metric["refit"])
        course = recovery.distill(small, family.distillation(small, model, calibration), validate, before, settings)
        far_after = {"cut": as_cut, "refit": after_refit, "distillation": far() if course.losses else after_refit}
    metric["distillation"] = accuracy(small) if course.kept else metric["refit"]
    record = {
        "dense": _size(family, model),
        "pruned": _size(family, small),
        "removed": _removed(model, small),
        "prunable": wanted.prunable,
        "removed_of_prunable": _removed(model, small) * _parameters(model) / wanted.prunable,
        "sensitivity": sensitivity,
        "tuning_loss": far_after,  # the distillation loss: how far the small model is from the dense one
        "accuracy": metric,
        "layer_error": errors,
        "distillation": {
            "steps": len(course.losses),
            "kept_step": course.kept,
            "calibration_loss": _mean_ends(course.losses),
            f"tuning_{settings.validate_by}": course.validation,
        },
    }
    return small, small_config, record


def _as_loss(family: Prunable[Any, Any], measured: float) -> float:
    """Return the headline metric so that less is better."""
    return 1 - measured if family.METRICS[family.HEADLINE].higher_is_better else measured


def _allocate(
    family: Prunable[Any, Any],
    model: torch.nn.Module,
    config: dict[str, Any],
    calibration: Any,
    tuning: Any,
    settings: PruneParams,
    *,
    wanted: Goal,
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Choose the widths of the smaller model by `settings.allocation`.

    A width costs what the refitted model loses on the tuning split. On the split of the refit it would look too small:
    a layer narrowed below the rank of what passes fits what it was fitted to, and little else.

    Returns:
        The configuration of the smaller model and, where costs decided, what was measured of each width.
    """
    steps = wanted.steps
    if settings.allocation == "uniform":
        return family.narrowed(config, wanted.removed, steps), None
    count = family.counter(config)
    dense = {key: width for key, width in family.widths(model).items() if key in steps}
    recorded = calibration[: len(calibration) // (1 + settings.variations)]  # as much as there is before variations
    curves: dict[str, dict[int, float]] = {key: {} for key in dense}
    with recovery.fixed_threads(recovery.REFIT_THREADS):
        probes = [(key, probe) for key, width in dense.items() for probe in allocation.probes(width, steps[key])]
        for key, probe in progress.each(probes, "narrower models"):
            alone = family.with_widths(config, {key: probe})
            small, refit = family.cut(model, alone, recorded, settings.criterion, settings.refit_damping)
            refit()
            curves[key][probe] = recovery.mean_loss(family.distillation(small, model, tuning))
    widths = allocation.cheapest(dense, curves, count, wanted.removed, wanted.tolerance, steps)
    measured = {
        key: [
            {"width": probe, "removed": 1 - count({key: probe}) / count(dense), "tuning_loss": loss}
            for probe, loss in curve.items()
        ]
        for key, curve in curves.items()
    }
    return family.with_widths(config, {key: width for key, width in widths.items() if width < dense[key]}), measured


def _steps(family: Prunable[Any, Any], model: torch.nn.Module, settings: PruneParams) -> dict[str, int]:
    """Return which widths may change, and what each stays a multiple of.

    Raises:
        UserError: none may, or heads are to and there are none.
    """
    widths = family.widths(model)
    heads = _heads(widths)
    steps = {key: 1 if key in heads else settings.round_to for key in widths if settings.heads or key not in heads}
    if not steps:
        raise UserError(
            f"prune: found {', '.join(widths) or 'no layer'} to cut, heads: {settings.heads}; wanted a feed-forward "
            "layer or, with heads: true, an attention"
        )
    if settings.heads and not heads:
        raise UserError(f"prune: found heads: true, and no heads to cut; wanted false, with {', '.join(steps)} alone")
    return steps


def _heads(widths: dict[str, int]) -> list[str]:
    return [key for key in widths if key.endswith(f".{narrowing.HEADS}")]


def _removed(model: torch.nn.Module, small: torch.nn.Module) -> float:
    """Return the share of the parameters that are gone."""
    return 1 - _parameters(small) / _parameters(model)


def _parameters(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def _check_removed(model: torch.nn.Module, small: torch.nn.Module, settings: PruneParams, wanted: Goal) -> None:
    removed = _removed(model, small)
    if abs(removed - wanted.removed) > wanted.tolerance:
        found = removed / wanted.removed * settings.ratio
        raise UserError(
            f"prune: widths that are multiples of {settings.round_to} remove {found:.3f} of {settings.ratio_of} "
            f"parameters at the nearest, wanted {settings.ratio} within {TOLERANCE}; lower prune.MODEL.round_to or "
            "change its ratio"
        )


def _size(family: Prunable[Any, Any], model: torch.nn.Module) -> dict[str, Any]:
    """Count parameters, layer widths, and multiply-accumulates of the family's usual input (of weights alone)."""
    return {
        "parameters": _parameters(model),
        "macs": family.multiplications(model),
        "widths": family.widths(model),
    }


def tuning_accuracy(
    family: Prunable[Any, Any], origin: Path, dense: torch.nn.Module, recordings: Sequence[Recording]
) -> Accuracy:
    """Measure the headline metric in FunASR's own code, the checkpoint at `origin` its baseline."""

    def outcomes(model: torch.nn.Module) -> Sequence[Any]:
        artifact = checkpoint.torch_artifact(family, model)
        with recovery.fixed_threads(1):  # as many as FunASR's code sets, which are not to last
            heard = progress.each(recordings, "recordings")
            found: Sequence[Any] = family.score(origin, artifact, family.MODES[0], heard)
        return found

    expected, clusters = outcomes(dense), group(recordings).clusters

    def accuracy(model: torch.nn.Module) -> float:
        found = expected if model is dense else outcomes(model)
        counts = family.measure(origin, recordings, expected, found)
        value = mean_of_clusters(family.METRICS[family.HEADLINE], family.HEADLINE, counts, clusters)
        if math.isnan(value):
            raise UserError(f"{origin}: the tuning split has nothing to measure {family.HEADLINE} by")
        return value

    return accuracy


def _mean_ends(losses: Sequence[float]) -> dict[str, float] | None:
    """Average the loss over the first and the last tenth of the steps."""
    tenth = max(1, len(losses) // 10)
    return {"first": sum(losses[:tenth]) / tenth, "last": sum(losses[-tenth:]) / tenth} if losses else None


def main(argv: Sequence[str]) -> None:
    """Run `python -m stages.prune MODEL`."""
    p = params.load()
    name = key_from(argv, "prune", plan.derive(p).prune)
    settings, model = p.prune_settings(name), p.models[name]
    family = models.PRUNABLE.load(model.family)
    origin = layout.checkpoint(name)
    with progress.phase("load the checkpoint"):
        dense, config = family.load(origin), family.read_config(origin)
    goal(family, dense, config, settings)  # what cannot be is said before minutes of preparation
    corpus, as_recorded = layout.corpus(model.dataset), settings.model_copy(update={"variations": 0})
    recordings = manifest.read(corpus, "tuning")
    with progress.phase("features of the calibration data"):
        calibration = family.calibration(origin, manifest.read(corpus, "calibration"), settings)
        tuning = family.calibration(origin, recordings, as_recorded)
    accuracy = tuning_accuracy(family, origin, dense, recordings)
    small, config, record = prune(family, dense, config, calibration, tuning, settings, accuracy=accuracy)
    record["accuracy"] |= {"metric": f"{family.MODES[0]}_{family.HEADLINE}"}
    with new_folder(layout.checkpoint(name, "pruned")) as folder:
        checkpoint.save(small, config, origin, folder)
        for variant, place in (("dense", origin), ("pruned", folder)):
            record[variant]["model_bytes"] = weights.find(place).stat().st_size
        write_json(folder / RECORD, record)
    removed, of_prunable = record["removed"], record["removed_of_prunable"]
    parameters, prunable = record["dense"]["parameters"], record["prunable"]
    print(f"{name}: removed {removed:.1%} of {parameters} parameters, {of_prunable:.1%} of the {prunable} prunable")


if __name__ == "__main__":
    entrypoint(main)
