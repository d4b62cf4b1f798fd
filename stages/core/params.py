"""params.yaml as frozen, typed objects: what is built, and how."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, field_validator
from pydantic.fields import FieldInfo
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

from stages.core.errors import UserError
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
PIPELINE = "pipeline"  # stands for the family in `gates`

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

    kind: Literal["spoken_commands", "hotword_commands", "conversations", "emotional_prosody", "punctuated_text"]
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


def _optional(field: FieldInfo) -> FieldInfo:
    """Return the same field, not required."""
    field = copy.copy(field)
    field.default = None
    return field


PruneOverrides: Any = create_model(  # what a model has in the place of its family's settings
    "PruneOverrides",
    __base__=_Section,
    **{name: (field.annotation, _optional(field)) for name, field in PruneParams.model_fields.items()},  # type: ignore[call-overload]
)


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


class _Recipe(_Section):
    """What every recipe has.

    graph: what it is applied to. `optimize` may hold ONNX Runtime's own operators, which TensorRT lacks.
    """

    graph: Literal["simplify", "optimize"] = "simplify"


class _Int8Recipe(_Recipe):
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


class Float16Recipe(_Recipe):
    """fp16 weights and arithmetic between fp32 inputs and outputs."""

    kind: Literal["float16"]
    keep_fp32_ops: list[str]


class BFloat16Recipe(_Recipe):
    """bf16 weights and arithmetic between fp32 inputs and outputs; for TensorRT, as ONNX Runtime has none on a CPU."""

    kind: Literal["bfloat16"]
    keep_fp32_ops: list[str]


Recipe = Annotated[DynamicRecipe | StaticRecipe | Float16Recipe | BFloat16Recipe, Field(discriminator="kind")]


class Checkpoint(_Section):
    """The family that knows a checkpoint's architecture, and where its files, pinned in pins/, may come from.

    dataset: whose splits it is calibrated, tuned and evaluated on.
    """

    family: Key
    dataset: Key
    license: str
    sources: list[Source] = Field(min_length=1)


class Model(Checkpoint):
    """A checkpoint with what is built of it: one that has no targets is only known by name.

    prune: what differs from `prune` of its family. tuned: by variant and name, what is applied in a recipe's place, as
    `python -m stages tune` writes it.
    """

    targets: list[Key] = []
    prune: PruneOverrides = PruneOverrides()
    tuned: dict[Variant, dict[Key, Recipe]] = {}


class QuantizeParams(_Section):
    """The recipes that targets name."""

    recipes: dict[Key, Recipe]


class EngineParams(_Section):
    """What engines are built for."""

    compute_capabilities: list[str] = Field(min_length=1)
    workspace_mib: int = Field(ge=1)


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


class System(_Section):
    """A composed system: a model for each of `ROLES`, and the targets that it is measured on."""

    vad: Key
    asr: Key
    streaming: Key
    punctuation: Key
    dataset: Key
    targets: list[Key] = Field(min_length=1)


class PipelineParams(_Section):
    """The composed systems, how often both run over each recording, and how many recordings are heard live."""

    rounds: int = Field(ge=1)
    live: int = Field(ge=1)
    systems: dict[Key, System]


class Target(_Section):
    """Runtime + graph + variant + gate."""

    runtime: Runtime
    variant: Variant
    graph: str
    gate: Key
    required: bool


class Gate(_Section):
    """The largest loss and the smallest speedup that pass, by family (or `pipeline`) and metric or latency case."""

    accuracy: dict[Key, dict[str, Annotated[float, Field(ge=0)]]]
    speedup: dict[Key, dict[str, Annotated[float, Field(gt=0)]]] = {}


class Params(_Section):
    """All of params.yaml.

    baselines: by family (or `pipeline`), the least score or the largest rate of errors of the fp32 model itself, the
    metric that is shown beside every drift first.
    """

    models: dict[Key, Model]
    datasets: dict[Key, Dataset]
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
    baselines: dict[Key, Annotated[dict[str, float], Field(min_length=1)]]

    def prune_settings(self, model: str) -> PruneParams:
        """Return what prunes a model: the settings of its family with the model's own in their place."""
        own = self.models[model].prune.model_dump(exclude_unset=True)
        return self.prune[self.models[model].family].model_copy(update=own)

    def recipe(self, model: str, variant: Variant, name: str) -> Recipe:
        """Return the recipe that a target of the model means by `name`: tuned for it, or everybody's."""
        return self.models[model].tuned.get(variant, {}).get(name) or self.quantize.recipes[name]


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
    from stages.core import preflight, wording  # they know the schema

    try:
        params = Params.model_validate(raw)
    except ValidationError as e:
        lines = (wording.explain(error, raw, Params.model_json_schema()) for error in e.errors())
        raise UserError("\n  ".join([f"{name}:", *lines])) from e
    problems = preflight.problems(params)
    if problems:
        raise UserError("\n  ".join([f"{name}:", *problems]))
    return params
