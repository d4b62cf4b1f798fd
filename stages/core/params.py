"""params.yaml as frozen, typed objects; every cross-reference is checked before anything is built."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

from stages.core import layout
from stages.core.errors import UserError, did_you_mean
from stages.core.files import safe_relative

PARAMS = Path("params.yaml")
# The parts of a pipeline, and the function by which a family says that it can take one.
ROLES = {
    "vad": "detector",
    "asr": "recognizer",
    "streaming": "streaming_recognizer",
    "punctuation": "punctuator",
}
UNQUANTIZED = ("export", "simplify", "optimize")  # graphs in the order in which one is made of the other
_ORT_ONLY = "`optimize` may use ONNX Runtime's own operators (com.microsoft)"
PIPELINE = "pipeline"  # stands for the family in `gates`
FAMILIES = Path(__file__).parents[1] / "models"  # modules that say what they require of a config are families

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Key = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]*$")]
Variant = Literal["dense", "pruned"]
Runtime = Literal["onnxruntime", "tensorrt_rtx", "tensorrt"]
Split = Literal["calibration", "tuning", "evaluation"]
RatioOf = Literal["all", "prunable"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Archive(_Section):
    """One file of the Python package index, pinned by name and digest."""

    project: str
    file: str
    sha256: Sha256

    @field_validator("file")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        if len(safe_relative(value, "an archive").parts) != 1:
            raise ValueError("must be a file name without a folder")
        return value


class ModelScopeSource(_Section):
    """The ModelScope hub, by the model's id and revision."""

    repository: ClassVar[Literal["model", "dataset"]] = "model"  # what the hub calls it
    kind: Literal["modelscope"]
    hub_id: str = Field(pattern=r"^\w[\w.-]*/\w[\w.-]*$")
    revision: str = Field(min_length=1)

    @field_validator("revision")
    @classmethod
    def _pinned(cls, value: str) -> str:
        if value in {"master", "main"} or not re.fullmatch(r"v?\d[\w.]*|[0-9a-f]{40}", value):
            raise ValueError(f"{value!r} can move; wanted a version tag such as v2.0.4 or a 40-hex commit")
        return value


class WheelSource(_Section):
    """A wheel that carries the checkpoint's files; read as an archive, never installed."""

    kind: Literal["wheel"]
    archive: Archive
    folder: str


class FolderSource(_Section):
    """A folder on this machine, such as an air-gapped mirror; a relative path is the repository's own."""

    kind: Literal["folder"]
    path: Path


Source = Annotated[ModelScopeSource | WheelSource | FolderSource, Field(discriminator="kind")]


class Model(_Section):
    """One checkpoint: the family that knows its architecture, and where its files, pinned in pins/, may come from."""

    family: Key
    dataset: Key
    license: str
    sources: list[Source] = Field(min_length=1)


class MixturesDataset(_Section):
    """Labelled mixtures that `stages/corpora/vad_mixtures.py` makes from real recordings."""

    kind: Literal["vad_mixtures"]
    path: str
    seed: int
    archives: dict[Key, Archive]
    mixtures: dict[Split, Annotated[int, Field(ge=1)]]
    snr_db: list[float] = Field(min_length=1)


class SyntheticDataset(_Section):
    """Speech and text that the module of `stages/corpora/` named as `kind` makes from nothing but a seed."""

    kind: Literal["spoken_commands", "conversations", "emotional_prosody", "punctuated_text"]
    path: str
    seed: int
    items: dict[Split, Annotated[int, Field(ge=1)]]


class ManifestDataset(_Section):
    """The user's own recordings: a folder with one JSONL manifest for each split."""

    kind: Literal["manifest"]
    path: str


class ModelScopeDataset(ModelScopeSource):
    """Manifests and WAV files in a data set of the ModelScope hub; `path` is its lock file, as `pin` writes it."""

    repository: ClassVar[Literal["model", "dataset"]] = "dataset"
    path: str


Dataset = Annotated[
    MixturesDataset | SyntheticDataset | ManifestDataset | ModelScopeDataset, Field(discriminator="kind")
]


class PruneParams(_Section):
    """How a model loses `ratio` of its parameters and what recovers it.

    ratio_of: of `all` its parameters, or of the `prunable` ones, those of the layers that can be cut: where a large
    vocabulary's embedding is most of a model, they are a few in a hundred. heads: attention heads may go too.
    """

    dataset: Key
    ratio: float = Field(gt=0, lt=0.9)
    ratio_of: RatioOf = "all"
    round_to: int = Field(ge=1)
    heads: bool
    allocation: Literal["uniform", "sensitivity"]
    criterion: Literal["magnitude", "activation", "taylor", "least_squares"]
    refit_damping: float = Field(gt=0)
    variations: int = Field(ge=0)
    distill_steps: int = Field(ge=0)
    validate_every: int = Field(ge=1)
    patience: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    seed: int


class ExportParams(_Section):
    """Settings of every export."""

    opset: int = Field(ge=13, le=24)
    tolerance: float = Field(gt=0)


class SimplifyParams(_Section):
    """Limits of the simplifier's child process and of what it may change."""

    seconds: float = Field(gt=0)
    memory_gib: float = Field(gt=0)
    tolerance: float = Field(gt=0)


class OptimizeParams(_Section):
    """What a rewrite may change."""

    tolerance: float = Field(gt=0)


class _Int8Recipe(_Section):
    """What both kinds of INT8 have.

    min_outputs: layers with fewer outputs stay in fp32. exclude_nodes: so do these, named as in the model's graphs.
    smooth: how much of a channel's outliers moves from the activations into the weights, 0 to 1, or null for none:
    SmoothQuant's alpha. embedding_rows: tables of at least as many rows that are only looked up, as a large
    vocabulary's embedding is, become INT8 with a scale for each row; null leaves all in fp32. calibration_feeds: inputs
    of each graph that tell how large the activations are.
    """

    weight_type: Literal["QInt8", "QUInt8"]
    per_channel: bool
    reduce_range: bool
    op_types: list[str] = Field(min_length=1)
    min_outputs: int = Field(default=1, ge=1)
    exclude_nodes: list[str] = []
    smooth: float | None = Field(default=None, ge=0, le=1)
    embedding_rows: int | None = Field(default=None, ge=1)
    calibration_feeds: int = Field(default=64, ge=1)


class DynamicRecipe(_Int8Recipe):
    """INT8 weights, activations quantized at run time."""

    kind: Literal["dynamic"]


class StaticRecipe(_Int8Recipe):
    """INT8 weights and activations in QuantizeLinear and DequantizeLinear pairs, scales fixed by calibration.

    calibration: the range of a tensor is all that it was (`minmax`), all but the outliers beyond `percentile`, or
    what loses least information (`entropy`), over `calibration_feeds` inputs of each graph. symmetric: activations
    have no zero point, which TensorRT demands.
    """

    kind: Literal["static"]
    activation_type: Literal["QInt8", "QUInt8"]
    symmetric: bool
    calibration: Literal["minmax", "percentile", "entropy"]
    percentile: float = Field(default=99.99, gt=50, le=100)


class Float16Recipe(_Section):
    """fp16 weights and arithmetic between fp32 inputs and outputs."""

    kind: Literal["float16"]
    keep_fp32_ops: list[str]


class BFloat16Recipe(_Section):
    """bf16 weights and arithmetic between fp32 inputs and outputs; for TensorRT, as ONNX Runtime has none on a CPU."""

    kind: Literal["bfloat16"]
    keep_fp32_ops: list[str]


Recipe = Annotated[DynamicRecipe | StaticRecipe | Float16Recipe | BFloat16Recipe, Field(discriminator="kind")]


class QuantizedGraph(_Section):
    """A line of `quantize.graphs`: which recipe is applied to which graphs of a variant.

    dataset: whose calibration split tells the activations, where a recipe asks. tuned: what is applied in the recipe's
    place to this model, as `python -m stages tune` writes it.
    """

    model: Key
    variant: Variant
    graph: Literal["simplify", "optimize"]
    recipe: Key
    dataset: Key
    tuned: Recipe | None = None


class QuantizeParams(_Section):
    """The recipes, and what they are applied to."""

    recipes: dict[Key, Recipe]
    graphs: dict[str, QuantizedGraph]


class EngineBuild(_Section):
    """A line of `engine.builds`: the graph that becomes a TensorRT engine for a target."""

    model: Key
    variant: Variant
    graph: str
    target: Key


class EngineParams(_Section):
    """What engines are built for."""

    compute_capabilities: list[str] = Field(min_length=1)
    workspace_mib: int = Field(ge=1)
    builds: dict[str, EngineBuild]


class VariantParams(_Section):
    """A line of `variants`: what export, simplify and optimize run over."""

    model: Key
    variant: Variant


class EvaluateParams(_Section):
    """How intervals are made."""

    split: Split
    resamples: int = Field(ge=100)
    confidence: float = Field(gt=0.5, lt=1)
    seed: int


class BenchmarkParams(_Section):
    """How long is measured: pairs of one baseline and one candidate run, until the seconds or the pairs are used up."""

    seconds: float = Field(gt=0)
    pairs: int = Field(ge=5)
    warmup: int = Field(ge=1)
    loads: int = Field(ge=3)
    seed: int


class PipelineBuild(_Section):
    """A line of `pipeline.builds`: a composed system on one target; a model for each of `ROLES`.

    artifact: the folder, under that of each model in artifacts/, with what the target loads.
    """

    pipeline: Key
    target: Key
    artifact: str
    vad: Key
    asr: Key
    streaming: Key
    punctuation: Key
    dataset: Key


class PipelineParams(_Section):
    """The composed systems, how often both run over each recording, and how many recordings are heard live."""

    rounds: int = Field(ge=1)
    live: int = Field(ge=1)
    builds: dict[str, PipelineBuild]


class Target(_Section):
    """Runtime + graph + variant + gate."""

    runtime: Runtime
    variant: Variant
    graph: str
    gate: Key
    required: bool


class Build(_Section):
    """One model on one target; `artifact` is the folder that holds what the runtime loads."""

    model: Key
    target: Key
    artifact: str


class Gate(_Section):
    """The largest loss and the smallest speedup that pass, by family (or `pipeline`) and metric or latency case."""

    accuracy: dict[Key, dict[str, Annotated[float, Field(ge=0)]]]
    speedup: dict[Key, dict[str, Annotated[float, Field(gt=0)]]] = {}


class Params(_Section):
    """All of params.yaml."""

    models: dict[Key, Model]
    datasets: dict[Key, Dataset]
    variants: dict[str, VariantParams]
    prune: dict[Key, PruneParams]
    export: ExportParams
    simplify: SimplifyParams
    optimize: OptimizeParams
    quantize: QuantizeParams
    engine: EngineParams
    evaluate: EvaluateParams
    benchmark: BenchmarkParams
    pipeline: PipelineParams
    targets: dict[Key, Target]
    gates: dict[Key, Gate]
    builds: dict[str, Build]


def load(path: Path = PARAMS) -> Params:
    """Parse and check params.yaml.

    Raises:
        UserError: it is missing, not YAML, has an unknown key, a wrong type, or a line that names
            something that does not exist or cannot work.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as e:
        raise UserError(f"{path} is not in this folder; run from the repository's root") from e
    return parse(text, str(path))


def parse(text: str, name: str) -> Params:
    """Parse and check the text of a params.yaml that messages call `name`, as `load` does."""
    try:
        raw = YAML(typ="safe", pure=True).load(text)
    except MarkedYAMLError as e:
        where = f" line {e.problem_mark.line + 1}" if e.problem_mark else ""
        raise UserError(f"{name}{where}: {e.problem or e.context}") from e
    if not isinstance(raw, dict):
        raise UserError(f"{name}: found {type(raw).__name__}, wanted a mapping of sections")
    try:
        params = Params.model_validate(raw)
    except ValidationError as e:
        raise UserError("\n  ".join([f"{name}:", *(_explain(error, raw) for error in e.errors())])) from e
    problems = list(_preflight(params))
    if problems:
        raise UserError("\n  ".join([f"{name}:", *problems]))
    return params


def _explain(error: Mapping[str, Any], raw: Mapping[str, Any]) -> str:
    """One line for one pydantic error: the key, what was found and what was wanted."""
    steps = [step for step in error["loc"] if step in _reachable(error["loc"], raw)]
    key = ".".join(map(str, steps))
    if error["type"] == "extra_forbidden":
        return f"{key}: unknown key; {did_you_mean(str(error['loc'][-1]), _fields(error['loc'][:-1]))}"
    if error["type"] == "missing":
        return f"{'.'.join(filter(None, [key, str(error['loc'][-1])]))}: missing"
    return f"{key}: found {error['input']!r}; {error['msg'].removeprefix('Value error, ')}"


def _reachable(loc: Sequence[Any], raw: Any) -> list[str | int]:
    """The steps of a pydantic location that are keys of the file: a union adds its tag, which is not."""
    steps = []
    for step in loc:
        if (isinstance(raw, dict) and step in raw) or (isinstance(raw, list) and isinstance(step, int)):
            raw = raw[step]
            steps.append(step)
    return steps


def _fields(loc: tuple[str | int, ...]) -> list[str]:
    """The keys that params.yaml may have at a pydantic location, found by walking the schema."""
    schema = Params.model_json_schema()
    node: dict[str, Any] = schema
    for step in loc:
        node = _resolve(node, schema)
        if "discriminator" in node:
            node = {"$ref": node["discriminator"]["mapping"][step]}
        elif isinstance(step, int):
            node = node["items"]
        else:
            node = node.get("properties", {}).get(step) or _any_key(node)
    return list(_resolve(node, schema).get("properties", {}))


def _any_key(node: dict[str, Any]) -> dict[str, Any]:
    """The schema of a mapping's values; pydantic files them under the pattern of a constrained key."""
    patterns: dict[str, dict[str, Any]] = node.get("patternProperties", {})
    values: dict[str, Any] = next(iter(patterns.values()), node.get("additionalProperties", {}))
    return values


def _resolve(node: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node:
        node = schema["$defs"][node["$ref"].rsplit("/", 1)[-1]]
    return node


def _preflight(p: Params) -> list[str]:
    """Everything in params.yaml that names what is absent or asks for what cannot work."""
    problems: list[str] = []

    def known(where: str, what: str, name: str, table: Mapping[str, object]) -> bool:
        if name not in table:
            problems.append(f"{where}: unknown {what} {name!r}; {did_you_mean(name, list(table))}")
        return name in table

    _check_hub_datasets(p, problems)
    families = families_with("SCHEMAS")
    for name, model in p.models.items():
        known(f"models.{name}", "family", model.family, dict.fromkeys(families))
        known(f"models.{name}", "dataset", model.dataset, p.datasets)
    for name, prune in p.prune.items():
        known(f"prune.{name}", "model", name, p.models)
        known(f"prune.{name}", "dataset", prune.dataset, p.datasets)
        if 0 < prune.distill_steps < prune.validate_every:
            problems.append(
                f"prune.{name}.validate_every: found {prune.validate_every}, wanted at most the {prune.distill_steps} "
                "of distill_steps, or nothing is validated on the way"
            )
    _check_tables(p, problems, known)
    for name, target in p.targets.items():
        known(f"targets.{name}", "gate", target.gate, p.gates)
        _check_target(f"targets.{name}", target, p, problems)
    for name, build in p.builds.items():
        where = f"builds.{name}"
        _check_key(where, name, f"{build.model}-{build.target}", problems)
        if known(where, "model", build.model, p.models) and known(where, "target", build.target, p.targets):
            _check_build(where, build, p, problems)
    for name, line in p.pipeline.builds.items():
        _check_pipeline(name, line, p, problems, known)
    return problems


def _check_hub_datasets(p: Params, problems: list[str]) -> None:
    """Their lock files lie with those of models, so they are where `pin` writes them, and no model has their names."""
    for name, dataset in p.datasets.items():
        if not isinstance(dataset, ModelScopeDataset):
            continue
        lock = str(layout.pin(name))
        if dataset.path != lock:
            problems.append(f"datasets.{name}.path: found {dataset.path!r}, wanted its lock file, {lock!r}")
        if name in p.models:
            problems.append(f"datasets.{name}: a model has that name, and both would have the lock file {lock}")


def families_with(definition: str) -> set[str]:
    """The families whose file defines that constant or function; read, not imported: importing takes seconds."""
    pattern = re.compile(rf"^(def )?{definition}\b", re.MULTILINE)
    return {path.stem for path in FAMILIES.glob("[a-z]*.py") if pattern.search(path.read_text("utf-8"))}


def _check_tables(p: Params, problems: list[str], known: Callable[..., bool]) -> None:
    """The tables that DVC iterates: their keys follow from their fields and what they need is there."""
    for name, line in p.variants.items():
        _check_key(f"variants.{name}", name, f"{line.model}-{line.variant}", problems)
        if known(f"variants.{name}", "model", line.model, p.models) and line.variant == "pruned":
            known(f"variants.{name}", "model with a `prune` section", line.model, p.prune)
    for name, graph in p.quantize.graphs.items():
        where = f"quantize.graphs.{name}"
        _check_key(where, name, f"{graph.model}-{graph.variant}-{graph.recipe}", problems)
        known(where, "variant", f"{graph.model}-{graph.variant}", p.variants)
        known(where, "recipe", graph.recipe, p.quantize.recipes)
        known(where, "dataset", graph.dataset, p.datasets)
    for name, engine in p.engine.builds.items():
        where = f"engine.builds.{name}"
        _check_key(where, name, f"{engine.model}-{engine.target}", problems)
        if known(where, "build", name, p.builds) and known(where, "target", engine.target, p.targets):
            target = p.targets[engine.target]
            if (engine.variant, engine.graph) != (target.variant, target.graph):
                wanted = f"variant: {target.variant}, graph: {target.graph}"
                problems.append(f"{where}: wanted {wanted} as targets.{engine.target} has it")


def _check_key(where: str, found: str, wanted: str, problems: list[str]) -> None:
    if found != wanted:
        problems.append(f"{where}: the key must be {wanted!r}, made of the line's own fields")


def _check_target(where: str, target: Target, p: Params, problems: list[str]) -> None:
    """Reject what the runtime cannot run, before anything is built."""
    if target.graph not in {*UNQUANTIZED, *p.quantize.recipes}:
        hint = did_you_mean(target.graph, [*UNQUANTIZED, *p.quantize.recipes])
        problems.append(f"{where}.graph: unknown graph {target.graph!r}; {hint}")
        return
    recipe = p.quantize.recipes.get(target.graph)
    if recipe is not None and (why := _cannot_run(target.runtime, recipe)):
        problems.append(f"{where}: recipe {target.graph!r} {why}")
    if target.runtime != "onnxruntime" and target.graph == "optimize":
        problems.append(f"{where}: {_ORT_ONLY}, which {target.runtime} does not have; use graph: simplify")


def _cannot_run(runtime: Runtime, recipe: Recipe) -> str | None:
    """Why a runtime cannot run what a recipe makes, or None."""
    if runtime == "onnxruntime":
        return "is bf16, for which onnxruntime has no CPU kernels" if isinstance(recipe, BFloat16Recipe) else None
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


def artifact(model: str, name: str, target: Target) -> str:
    """The folder under artifacts/ with what the target called `name` loads: an ONNX graph or an engine."""
    return f"{model}/{target.variant}/{target.graph if target.runtime == 'onnxruntime' else name}"


def _check_build(where: str, build: Build, p: Params, problems: list[str]) -> None:
    """The artifact is where the target's stages put it, and a table makes it."""
    target = p.targets[build.target]
    wanted = artifact(build.model, build.target, target)
    if build.artifact != wanted:
        problems.append(f"{where}.artifact: found {build.artifact!r}, wanted {wanted!r} (from targets.{build.target})")
    if target.runtime != "onnxruntime" and f"{build.model}-{build.target}" not in p.engine.builds:
        problems.append(f"{where}: add the line {build.model}-{build.target} to engine.builds")
    variant = f"{build.model}-{target.variant}"
    if variant not in p.variants:
        problems.append(f"{where}: add the line {variant} to variants")
    if target.graph in p.quantize.recipes and f"{variant}-{target.graph}" not in p.quantize.graphs:
        problems.append(f"{where}: add the line {variant}-{target.graph} to quantize.graphs")
    line = p.quantize.graphs.get(f"{variant}-{target.graph}")
    if target.runtime != "onnxruntime" and line is not None and line.graph == "optimize":
        name = f"quantize.graphs.{variant}-{target.graph}.graph"
        problems.append(f"{where}: {_ORT_ONLY}, which {target.runtime} does not have; set {name}: simplify")
    if line is not None and line.tuned is not None and (why := _cannot_run(target.runtime, line.tuned)):
        problems.append(f"{where}: quantize.graphs.{variant}-{target.graph}.tuned {why}")
    family = p.models[build.model].family
    if target.gate in p.gates and family not in p.gates[target.gate].accuracy:
        problems.append(f"{where}: gates.{target.gate}.accuracy has no limits for the family {family!r}")


def _check_pipeline(name: str, line: PipelineBuild, p: Params, problems: list[str], known: Callable[..., bool]) -> None:
    """Every part is a model that can take it and is built for the target."""
    where = f"pipeline.builds.{name}"
    _check_key(where, name, f"{line.pipeline}-{line.target}", problems)
    known(where, "dataset", line.dataset, p.datasets)
    if line.pipeline in p.models:
        problems.append(f"{where}: {line.pipeline!r} is the name of a model; a pipeline needs one of its own")
    if not known(where, "target", line.target, p.targets):
        return
    for role, function in ROLES.items():
        model = getattr(line, role)
        if not known(f"{where}.{role}", "model", model, p.models):
            continue
        able, family = families_with(function), p.models[model].family
        if family not in able:
            wanted = " or ".join(sorted(able))
            problems.append(f"{where}.{role}: {model!r} is of the family {family}, wanted one of {wanted}")
        if f"{model}-{line.target}" not in p.builds:
            problems.append(f"{where}.{role}: add the line {model}-{line.target} to builds, which makes what it runs")
    target = p.targets[line.target]
    wanted = artifact("", line.target, target).removeprefix("/")
    if line.artifact != wanted:
        problems.append(f"{where}.artifact: found {line.artifact!r}, wanted {wanted!r} (from targets.{line.target})")
    if target.gate in p.gates and PIPELINE not in p.gates[target.gate].accuracy:
        problems.append(f"{where}: gates.{target.gate}.accuracy has no limits for {PIPELINE!r}")
