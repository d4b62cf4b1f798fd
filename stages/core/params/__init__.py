"""params.yaml as frozen, typed objects: what is built, and how."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from stages.core.errors import UserError
from stages.core.params import yaml_text
from stages.core.params.decoders import Decoder
from stages.core.params.gates import Gate
from stages.core.params.origins import Dataset, Source
from stages.core.params.prune import PruneOverrides, PruneParams
from stages.core.params.recipes import QuantizeParams, Recipe
from stages.core.params.section import Key, Runtime, Seconds, Section, Seed, Split, Variant

PARAMS = Path("params.yaml")
# Graphs in fp32, each with what it is made of.
UNQUANTIZED = {"export": None, "simplify": "export", "optimize": "simplify", "portable": "simplify"}
PIPELINE = "pipeline"  # stands for the family in `gates`


class ExportParams(Section):
    """Settings of every export."""

    opset: int = Field(ge=13, le=24)


class SimplifyParams(Section):
    """Limits of the simplifier's child process."""

    seconds: Seconds
    memory_gib: float = Field(gt=0, le=2**20)


class ParityParams(Section):
    """The largest difference between two fp32 networks that compute the same, relative to an output's scale."""

    tolerance: float = Field(gt=0)


class Checkpoint(Section):
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
    `kiln tune` writes it.
    """

    targets: list[Key] = Field(default_factory=list)
    prune: PruneOverrides = PruneOverrides()
    tuned: dict[Variant, dict[Key, Recipe]] = Field(default_factory=dict)


class EngineParams(Section):
    """What engines are built for."""

    compute_capabilities: list[str] = Field(min_length=1)
    workspace_mib: int = Field(ge=1, le=2**30)
    seconds: Seconds


class EvaluateParams(Section):
    """How intervals are made."""

    split: Split
    resamples: int = Field(ge=100, le=10**6)
    confidence: float = Field(gt=0.5, lt=1)
    seed: Seed


class BenchmarkParams(Section):
    """How long is measured: blocks of each case, and of a block pairs until the seconds or the pairs are used up.

    busy: the share of the time in which something waited for a core, above which it is measured again, `extra_blocks`
    at most; the others count if there are `blocks` of them, else all.
    """

    blocks: int = Field(ge=5)
    extra_blocks: int = Field(ge=0)
    busy: float = Field(gt=0, le=1)
    seconds: Seconds
    pairs: int = Field(ge=1)
    warmup: int = Field(ge=1)
    seed: Seed


class Pipeline(Section):
    """A model for each role of `stages.models.ROLES`, the data set they are measured on together, and the targets.

    decoder: how `asr` chooses its tokens.
    """

    vad: Key
    asr: Key
    decoder: Decoder
    streaming: Key
    punctuation: Key
    dataset: Key
    targets: list[Key] = Field(min_length=1)


class PipelineParams(Section):
    """How often a pipeline and its baseline run over each recording, and how many recordings are heard live."""

    rounds: int = Field(ge=1)
    live: int = Field(ge=1)


class Target(Section):
    """Runtime + graph + variant + gate."""

    runtime: Runtime
    variant: Variant
    graph: str
    gate: Key
    required: bool

    @property
    def is_exact(self) -> bool:
        """Tell whether a target's graphs should compute what the fp32 torch model does: at most rewritten."""
        return self.variant == "dense" and self.graph in UNQUANTIZED


class Params(Section):
    """All of params.yaml.

    baselines: by family (or `pipeline`), the least score or the largest rate of errors of the fp32 model itself, the
    metric that is shown beside every drift first.
    """

    models: dict[Key, Model]
    datasets: dict[Key, Dataset]
    prune: dict[Key, PruneParams]
    export: ExportParams
    simplify: SimplifyParams
    parity: ParityParams
    quantize: QuantizeParams
    engine: EngineParams
    evaluate: EvaluateParams
    benchmark: BenchmarkParams
    pipeline: PipelineParams
    pipelines: dict[Key, Pipeline]
    targets: dict[Key, Target]
    gates: dict[Key, Gate]
    baselines: dict[Key, Annotated[dict[str, float], Field(min_length=1)]]

    def prune_settings(self, model: str) -> PruneParams:
        """Return the settings that prune a model: its family's, with the model's own in their place."""
        own = self.models[model].prune.model_dump(exclude_unset=True)
        return self.prune[self.models[model].family].model_copy(update=own)

    def has_to_pass(self, name: str, target: str) -> bool:
        """Tell whether a model or pipeline has to pass the gate of a required target: nothing there excuses it."""
        return self.targets[target].required and name not in self.gates[self.targets[target].gate].optional

    def recipe(self, model: str, variant: Variant, name: str) -> Recipe:
        """Return the recipe that a target of the model means by `name`: tuned for it, or everybody's."""
        return self.models[model].tuned.get(variant, {}).get(name) or self.quantize.recipes[name]


def load(path: Path = PARAMS) -> Params:
    """Parse and check params.yaml.

    Raises:
        UserError: it is missing, not YAML, has an unknown key, a wrong type, or a line that names
            something that does not exist or cannot work.
    """
    return parse(yaml_text.read(path), str(path))


@lru_cache(maxsize=8)  # a command that edits the file parses each of its versions several times
def parse(text: str, name: str) -> Params:
    """Parse and check the text of a params.yaml that messages call `name`, as `load` does."""
    raw = yaml_text.parse(text, name)
    if not isinstance(raw, dict):
        raise UserError(f"{name}: found {type(raw).__name__}, wanted a mapping of sections")
    from stages.core.params import preflight, wording  # they know the schema

    try:
        params = Params.model_validate(raw)
    except ValidationError as e:
        lines = (wording.explain(error, raw, Params.model_json_schema()) for error in e.errors())
        raise UserError("\n  ".join([f"{name}:", *lines])) from e
    problems = preflight.problems(params)
    if problems:
        raise UserError("\n  ".join([f"{name}:", *problems]))
    return params
