"""Which stage runs for what: the tables that dvc.yaml iterates, derived from params.yaml. Structure, no values.

DVC's templates can iterate tables, and cannot derive them; so they lie in a file, which `kiln plan` writes
and nobody edits. A field that ends in `_from` is the key of params.yaml whose value the stage depends on.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict
from ruamel.yaml import YAML

from stages.core.errors import UserError
from stages.core.files import write_text
from stages.core.params import UNQUANTIZED, Params, Target
from stages.core.params.section import ENGINES, OWN_FILES, TRACED, Variant

PLAN = Path("plan.yaml")
HEAD = "# Written by `kiln plan` from params.yaml, for the dvc.yaml files to iterate. Do not edit it.\n"


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True)


class Pruning(_Line):
    """A model that has a pruned variant; `settings_from` is its own settings or, where it has none, its family's."""

    family: str
    dataset: str
    settings_from: str


class GraphSource(_Line):
    """A variant of a model, for export, simplify, optimize and portable."""

    model: str
    variant: Variant


class QuantizedGraph(_Line):
    """A recipe applied to the graphs of a variant; `dataset` tells the activations, where a recipe asks."""

    model: str
    variant: Variant
    recipe: str
    graph: str
    dataset: str
    recipe_from: str


class EngineBuild(_Line):
    """The graph that becomes an engine, or another runtime's own file, for a target."""

    model: str
    variant: Variant
    graph: str
    target: str


class TracedNetwork(_Line):
    """The checkpoint that becomes TorchScript for a target."""

    model: str
    variant: Variant
    target: str


class Build(_Line):
    """One model on one target; `artifact` is the folder under artifacts/ with what the runtime loads.

    limits_from: what decides when enough recordings were scored.
    """

    model: str
    target: str
    artifact: str
    limits_from: str


class PipelineBuild(_Line):
    """A pipeline on one target; `artifact` is the folder under that of each model in artifacts/."""

    pipeline: str
    target: str
    artifact: str
    vad: str
    asr: str
    streaming: str
    punctuation: str
    dataset: str


class Report(_Line):
    """A target that something is built for, with what is."""

    gate: str
    builds: list[str]


class Plan(_Line):
    """Every table, by the keys that DVC calls the stages by."""

    checkpoints: dict[str, dict[str, str]]
    datasets: dict[str, dict[str, str]]
    prune: dict[str, Pruning]
    variants: dict[str, GraphSource]
    portable: dict[str, GraphSource]
    quantize: dict[str, QuantizedGraph]
    engine: dict[str, EngineBuild]
    trace: dict[str, TracedNetwork]
    builds: dict[str, Build]
    pipelines: dict[str, PipelineBuild]
    reports: dict[str, Report]


def derive(p: Params) -> Plan:
    """Return what params.yaml asks for, as tables; every model has its dense variant, which is the baseline."""
    builds = {f"{b.model}-{b.target}": b for b in _builds(p)}
    variants = {f"{v.model}-{v.variant}": v for v in _variants(p)}
    pruned = [v.model for v in variants.values() if v.variant == "pruned"]
    return Plan(
        checkpoints={name: {"dataset": model.dataset} for name, model in p.models.items() if model.targets},
        datasets={name: {"path": dataset.path} for name, dataset in p.datasets.items()},
        prune={name: _pruning(p, name) for name in pruned},
        variants=variants,
        portable={key: line for key, line in variants.items() if "portable" in _graphs(p, line)},
        quantize={f"{q.model}-{q.variant}-{q.recipe}": q for q in _quantized_graphs(p)},
        engine={f"{e.model}-{e.target}": e for e in _engines(p)},
        trace={f"{t.model}-{t.target}": t for t in _traced(p)},
        builds=builds,
        pipelines={f"{s.pipeline}-{s.target}": s for s in _pipelines(p)},
        reports={
            name: Report(gate=target.gate, builds=[key for key, b in builds.items() if b.target == name])
            for name, target in p.targets.items()
            if any(b.target == name for b in builds.values())
        },
    )


def artifact(name: str, target: Target) -> str:
    """Return the folder under artifacts/MODEL/ with what the target called `name` loads: ONNX graphs or engines."""
    return f"{target.variant}/{name if target.runtime in OWN_FILES else target.graph}"


def _model_targets(p: Params) -> Iterator[tuple[str, str, Target]]:
    """Yield each model with each of its targets, by name and as it is."""
    for model, settings in p.models.items():
        yield from ((model, name, p.targets[name]) for name in settings.targets)


def _builds(p: Params) -> Iterator[Build]:
    for model, name, target in _model_targets(p):
        yield Build(
            model=model,
            target=name,
            artifact=f"{model}/{artifact(name, target)}",
            limits_from=f"gates.{target.gate}.accuracy.{p.models[model].family}",
        )


def _variants(p: Params) -> Iterator[GraphSource]:
    for model, settings in p.models.items():
        asked = {p.targets[name].variant for name in settings.targets}
        yield from (GraphSource(model=model, variant=variant) for variant in sorted(asked | {"dense"}) if asked)


def _graphs(p: Params, line: GraphSource) -> Iterator[str]:
    """Yield which unquantized graphs the targets of a variant load or quantize."""
    for name in p.models[line.model].targets:
        target = p.targets[name]
        if target.variant == line.variant:
            plain = target.graph in UNQUANTIZED
            yield target.graph if plain else p.recipe(line.model, line.variant, target.graph).graph


def _pruning(p: Params, name: str) -> Pruning:
    model = p.models[name]
    own = f"models.{name}.prune" if model.prune.model_fields_set else f"prune.{model.family}"
    return Pruning(family=model.family, dataset=model.dataset, settings_from=own)


def _quantized_graphs(p: Params) -> Iterator[QuantizedGraph]:
    for model, _, target in _model_targets(p):
        if target.graph in UNQUANTIZED:
            continue
        settings, recipe = p.models[model], p.recipe(model, target.variant, target.graph)
        is_tuned = target.graph in settings.tuned.get(target.variant, {})
        own = f"models.{model}.tuned.{target.variant}.{target.graph}"
        yield QuantizedGraph(
            model=model,
            variant=target.variant,
            recipe=target.graph,
            graph=recipe.graph,
            dataset=settings.dataset,
            recipe_from=own if is_tuned else f"quantize.recipes.{target.graph}",
        )


def _engines(p: Params) -> Iterator[EngineBuild]:
    for model, name, target in _model_targets(p):
        if target.runtime in ENGINES:
            yield EngineBuild(model=model, variant=target.variant, graph=target.graph, target=name)


def _traced(p: Params) -> Iterator[TracedNetwork]:
    for model, name, target in _model_targets(p):
        if target.runtime in TRACED:
            yield TracedNetwork(model=model, variant=target.variant, target=name)


def _pipelines(p: Params) -> Iterator[PipelineBuild]:
    for name, pipeline in p.pipelines.items():
        parts = pipeline.model_dump(exclude={"targets", "decoder"})
        for key in pipeline.targets:
            yield PipelineBuild(pipeline=name, target=key, artifact=artifact(key, p.targets[key]), **parts)


def write(p: Params) -> bool:
    """Write plan.yaml where it is not what params.yaml asks for, and tell whether it was not."""
    if _is_current(p):
        return False
    write_text(PLAN, _text(derive(p)))
    return True


def check(p: Params) -> None:
    """Raise UserError unless plan.yaml is what params.yaml asks for."""
    if not _is_current(p):
        raise UserError(f"{PLAN} is not what params.yaml asks for now; run `kiln plan`, then build again")


def _is_current(p: Params) -> bool:
    return PLAN.is_file() and PLAN.read_bytes() == _text(derive(p)).encode()


def _text(plan: Plan) -> str:
    """Return the file: one line for each line of a table."""
    yaml: Any = YAML(typ="safe", pure=True)
    yaml.default_flow_style, yaml.width, yaml.sort_base_mapping_type_on_output = None, 4096, False
    text = io.StringIO()
    yaml.dump({"plan": plan.model_dump()}, text)
    return HEAD + text.getvalue()
