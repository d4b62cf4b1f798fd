"""What params.yaml names that is absent, or asks for that cannot work: found before anything is built."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from stages.core import layout
from stages.core.errors import did_you_mean
from stages.core.params import PIPELINE, UNQUANTIZED, Model, Params, Pipeline, Target
from stages.core.params.decoders import WfstDecoder
from stages.core.params.gates import Limit, RelativeLimit
from stages.core.params.origins import ModelScopeDataset, SyntheticDataset
from stages.core.params.prune import PruneParams
from stages.core.params.recipes import BFloat16Recipe, DynamicRecipe, Float16Recipe, Recipe, StaticRecipe
from stages.core.params.section import ONNX_RUNTIMES, TENSORRT, TRACED, Runtime
from stages.core.statistics import recordings_needed
from stages.models import DECODERS, FAMILIES, PRUNABLE, ROLES, accuracy

_HAS_OWN = (*ONNX_RUNTIMES, "onnxruntime_cuda", "ort_format", *TRACED)
_CPU_ONLY = "is for a CPU: on CUDA, ONNX Runtime leaves much of INT8 and bf16 to it; use a float16 recipe"
_NOT_BF16 = "is not bf16; use a bfloat16 recipe, or runtime: openvino"
_ORT_ONLY = "`optimize` may use ONNX Runtime's own operators (com.microsoft)"
_LSTM = "has LSTM in op_types, which becomes ONNX Runtime's own operator: set kind: dynamic and graph: optimize"


def problems(p: Params) -> list[str]:
    """Return one line for each problem; what names something unknown is checked no further."""
    unknown = [*_unknown(p), *_limits(p)]
    return unknown or [*_hub_datasets(p), *_prune(p), *_targets(p), *_models(p), *_unresolvable(p), *_pipelines(p)]


def _unknown(p: Params) -> Iterator[str]:
    for name, model in p.models.items():
        where = f"models.{name}"
        yield from _known(where, "family", model.family, FAMILIES)
        yield from _known(where, "dataset", model.dataset, p.datasets)
        for key in model.targets:
            yield from _known(f"{where}.targets", "target", key, p.targets)
        for variant, recipes in model.tuned.items():
            for recipe in recipes:
                yield from _known(f"{where}.tuned.{variant}", "recipe", recipe, p.quantize.recipes)
    for family in p.prune:
        yield from _known(f"prune.{family}", "prunable family", family, PRUNABLE)
    for name, target in p.targets.items():
        yield from _known(f"targets.{name}", "gate", target.gate, p.gates)
        yield from _known(f"targets.{name}", "graph", target.graph, [*UNQUANTIZED, *p.quantize.recipes])
    for name, pipeline in p.pipelines.items():
        where = f"pipelines.{name}"
        yield from _known(where, "dataset", pipeline.dataset, p.datasets)
        for role in ROLES:
            yield from _known(f"{where}.{role}", "model", getattr(pipeline, role), p.models)
        for key in pipeline.targets:
            yield from _known(f"{where}.targets", "target", key, p.targets)


def _limits(p: Params) -> Iterator[str]:
    yield from _metrics("baselines", p.baselines)
    for name, gate in p.gates.items():
        yield from _metrics(f"gates.{name}.accuracy", gate.accuracy)
        for family in gate.speedup:
            yield from _known(f"gates.{name}.speedup", "family", family, [*FAMILIES, PIPELINE])


def _metrics(where: str, limits: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield a line for each limit on a family or metric that does not exist: every build would keep it."""
    known = {family: measured.names() for family, measured in accuracy.FAMILIES.items()}
    known[PIPELINE] = [*accuracy.PIPELINE, accuracy.TEXTS_CHANGED]
    for family, metrics in limits.items():
        yield from _known(where, "family", family, known)
        for metric in metrics if family in known else ():
            yield from _known(f"{where}.{family}", "metric", metric, known[family])


def _known(where: str, what: str, name: str, table: Collection[str]) -> Iterator[str]:
    if name not in table:
        yield f"{where}: unknown {what} {name!r}; {did_you_mean(name, table)}"


def _hub_datasets(p: Params) -> Iterator[str]:
    """Yield a line for each data set of the hub whose lock file has another place or is a model's too."""
    for name, dataset in p.datasets.items():
        if not isinstance(dataset, ModelScopeDataset):
            continue
        lock = str(layout.pin(name))
        if dataset.path != lock:
            yield f"datasets.{name}.path: found {dataset.path!r}, wanted its lock file, {lock!r}"
        if name in p.models:
            yield f"datasets.{name}: a model has that name, and both would have the lock file {lock}"


def _prune(p: Params) -> Iterator[str]:
    for family, settings in p.prune.items():
        yield from _validated(f"prune.{family}", settings)
    for name, model in p.models.items():
        if model.prune.model_fields_set and model.family in p.prune:
            yield from _validated(f"models.{name}.prune", p.prune_settings(name))


def _validated(where: str, settings: PruneParams) -> Iterator[str]:
    if 0 < settings.distill_steps < settings.validate_every:
        yield (
            f"{where}.validate_every: found {settings.validate_every}, wanted at most the {settings.distill_steps} of "
            "distill_steps, or nothing is validated on the way"
        )


def _targets(p: Params) -> Iterator[str]:
    """Yield a line for each target whose runtime cannot run its graphs, whatever the model."""
    for name, target in p.targets.items():
        where, recipe = f"targets.{name}", p.quantize.recipes.get(target.graph)
        if recipe is not None and (why := _cannot_run(target.runtime, recipe)):
            yield f"{where}: recipe {target.graph!r} {why}"
        if target.runtime not in _HAS_OWN and target.graph == "optimize":
            yield f"{where}: {_ORT_ONLY}, which {target.runtime} does not have; use graph: simplify"
        if target.runtime == "openvino_bf16" and target.graph in UNQUANTIZED:
            yield f"{where}: graph {target.graph!r} {_NOT_BF16}"
        if target.runtime in TRACED and target.graph != "export":
            yield f"{where}: {target.runtime} is made of the checkpoint, not of a graph; use graph: export"


def _cannot_run(runtime: Runtime, recipe: Recipe) -> str | None:
    """Return why a runtime cannot run what a recipe makes, or None."""
    if runtime == "onnxruntime_cuda":
        return None if isinstance(recipe, Float16Recipe) else _CPU_ONLY
    if "LSTM" in getattr(recipe, "op_types", ()) and (recipe.kind, recipe.graph) != ("dynamic", "optimize"):
        return _LSTM
    if runtime in _HAS_OWN:
        return "is bf16, for which onnxruntime has no CPU kernels" if isinstance(recipe, BFloat16Recipe) else None
    why = _tensorrt_cannot_run(runtime, recipe) if runtime in TENSORRT else _openvino_cannot_run(runtime, recipe)
    if why is None and recipe.graph == "optimize":
        return f"has graph: optimize; {_ORT_ONLY}, which {runtime} does not have; use graph: simplify"
    return why


def _openvino_cannot_run(runtime: Runtime, recipe: Recipe) -> str | None:
    """Return why OpenVINO cannot run what a recipe makes, or would in another precision than the recipe's; or None."""
    if runtime == "openvino_bf16" and not isinstance(recipe, BFloat16Recipe):
        return _NOT_BF16
    if runtime == "openvino" and isinstance(recipe, BFloat16Recipe):
        return "is bf16, which OpenVINO runs in fp32 where a processor has none; use runtime: openvino_bf16"
    return None


def _tensorrt_cannot_run(runtime: Runtime, recipe: Recipe) -> str | None:
    """Return why an engine cannot be built of what a recipe makes, or None."""
    if isinstance(recipe, DynamicRecipe):
        return (
            f"is dynamic INT8, which {runtime} cannot run (it has no DynamicQuantizeLinear or MatMulInteger); use a "
            "static or float16 recipe, or runtime: onnxruntime"
        )
    signed = isinstance(recipe, StaticRecipe) and {recipe.weight_type, recipe.activation_type} == {"QInt8"}
    if isinstance(recipe, StaticRecipe) and not (signed and recipe.symmetric):
        return f"is static INT8 with zero points, which {runtime} cannot run; set both types to QInt8, symmetric: true"
    if isinstance(recipe, StaticRecipe) and recipe.embedding_rows is not None:
        return f"has INT8 tables that Gather reads, of which {runtime} builds no engine; leave out embedding_rows"
    return None


def _models(p: Params) -> Iterator[str]:
    for name, model in p.models.items():
        for key in model.targets:
            yield from _model_on(f"models.{name}", model, key, p.targets[key], p)


def _model_on(where: str, model: Model, key: str, target: Target, p: Params) -> Iterator[str]:
    if model.family not in p.gates[target.gate].accuracy:
        yield f"{where}.targets: {key}: gates.{target.gate}.accuracy has no limits for the family {model.family!r}"
    for metric in p.gates[target.gate].accuracy.get(model.family, ()):
        if metric.endswith(accuracy.EXACTNESS) and not target.is_exact:
            yield (
                f"{where}.targets: {key}: gates.{target.gate} asks for {metric}, which is measured of unquantized "
                "graphs of the dense model only; use another gate"
            )
    if target.variant == "pruned" and model.family not in p.prune:
        yield f"{where}.targets: {key} is pruned, and `prune` has no section for the family {model.family!r}"
    if model.family not in p.baselines:
        yield f"{where}: baselines has nothing for the family {model.family!r}: what the fp32 model must reach"
    recipe = model.tuned.get(target.variant, {}).get(target.graph)
    if recipe is not None and (why := _cannot_run(target.runtime, recipe)):
        yield f"{where}.tuned.{target.variant}.{target.graph} {why}"


def _unresolvable(p: Params) -> Iterator[str]:
    """Yield the limits that no build can be sure to keep: of 0, or for which a data set that is made here is too small.

    One that loses nothing at all is surer than any other, and needs the fewest recordings.
    """
    for name, model in p.models.items():
        gates = dict.fromkeys(p.targets[key].gate for key in model.targets)
        yield from _refuse_too_few(p, f"models.{name}", model.dataset, model.family, gates)
    for name, pipeline in p.pipelines.items():
        gates = dict.fromkeys(p.targets[key].gate for key in pipeline.targets)
        yield from _refuse_too_few(p, f"pipelines.{name}", pipeline.dataset, PIPELINE, gates)


def _refuse_too_few(p: Params, user: str, name: str, family: str, gates: Iterable[str]) -> Iterator[str]:
    dataset = p.datasets[name]
    for gate in gates:
        for metric, limit in p.gates[gate].accuracy.get(family, {}).items():
            if not _is_estimated(family, metric):
                continue
            where = f"gates.{gate}.accuracy.{family}.{metric}"
            most = _bound_limit(metric, limit, p.baselines.get(family, {}))
            if most == 0:
                yield f"{where}: no data shows that nothing at all is lost; wanted a limit over 0 ({user})"
            elif most and isinstance(dataset, SyntheticDataset) and p.evaluate.split in dataset.items:
                found, needed = dataset.items[p.evaluate.split], recordings_needed(most, p.evaluate.confidence)
                if found < needed:
                    yield (
                        f"{where}: a limit of at most {most:g} needs about {needed:,} recordings, "
                        f"datasets.{name}.items has {found:,} for {p.evaluate.split} ({user})"
                    )


def _is_estimated(family: str, metric: str) -> bool:
    """Tell whether what is not seen in the data may be lost: not of a largest value, nor of all that was compared."""
    if metric == accuracy.TEXTS_CHANGED or metric.endswith(accuracy.EXACTNESS):
        return False
    metrics = accuracy.PIPELINE if family == PIPELINE else accuracy.FAMILIES[family].metrics
    return metrics[metric if family == PIPELINE else metric.partition("_")[2]].pooling == "ratio"


def _bound_limit(metric: str, limit: Limit, ceilings: Mapping[str, float]) -> float | None:
    """Return what a limit is at most, None of a relative one where nobody knows.

    Of a relative limit that is its share of as many errors as `baselines` lets the fp32 model make.
    """
    if isinstance(limit, RelativeLimit):
        return max(limit.least, limit.relative * ceilings[metric]) if metric in ceilings else None
    return limit


def _pipelines(p: Params) -> Iterator[str]:
    for name, pipeline in p.pipelines.items():
        where = f"pipelines.{name}"
        if name in p.models:
            yield f"{where}: {name!r} is the name of a model; a pipeline needs one of its own"
        yield from _parts(where, pipeline, p)
        yield from _decoder(f"{where}.decoder", pipeline, p)
        if PIPELINE not in p.baselines:
            yield f"{where}: baselines has nothing for {PIPELINE!r}: what the fp32 pipeline must reach"
        for key in pipeline.targets:
            if PIPELINE not in p.gates[p.targets[key].gate].accuracy:
                yield f"{where}: gates.{p.targets[key].gate}.accuracy has no limits for {PIPELINE!r}"


def _parts(where: str, pipeline: Pipeline, p: Params) -> Iterator[str]:
    """Yield a line for each part of a pipeline that its model cannot take or is not built for."""
    for role, able in ROLES.items():
        name = getattr(pipeline, role)
        model = p.models[name]
        if model.family not in able:
            wanted = " or ".join(able)
            yield f"{where}.{role}: {name!r} is of the family {model.family}, wanted one of {wanted}"
        for key in pipeline.targets:
            if key not in model.targets:
                yield f"{where}.{role}: {name!r} is not built for {key}; add it to models.{name}.targets"


def _decoder(where: str, pipeline: Pipeline, p: Params) -> Iterator[str]:
    """Yield a line where a pipeline's decoder cannot choose its recognizer's tokens, or has a weight and no model."""
    decoder, family = pipeline.decoder, p.models[pipeline.asr].family
    if family in ROLES["asr"] and family not in DECODERS[decoder.kind]:
        able, wanted = (
            " or ".join(names)
            for names in (DECODERS[decoder.kind], [kind for kind, families in DECODERS.items() if family in families])
        )
        yield (
            f"{where}.kind: found {decoder.kind!r}, which decodes {able}, for {pipeline.asr!r} of the family {family}; "
            f"wanted {wanted}"
        )
    if isinstance(decoder, WfstDecoder) and decoder.lm is None and decoder.lm_weight:
        yield f"{where}.lm_weight: found {decoder.lm_weight:g} and no lm; add {where}.lm or leave lm_weight out"
    if isinstance(decoder, WfstDecoder) and decoder.lm and "lm_weight" not in decoder.model_fields_set:
        yield f"{where}: found an lm and no lm_weight, without which it changes nothing; add {where}.lm_weight"
