"""How a model is pruned."""

from __future__ import annotations

import copy
from typing import Any, Literal

from pydantic import Field, create_model
from pydantic.fields import FieldInfo

from stages.core.params.section import Section, Seed

RatioOf = Literal["all", "prunable"]


class PruneParams(Section):
    """How a model loses `ratio` of its parameters and what recovers it.

    ratio_of: of `all` its parameters, or of the `prunable` ones, those of the layers that can be cut: where a large
    vocabulary's embedding is most of a model, they are a few in a hundred. heads: attention heads may go too.
    warmup: steps in which the learning rate rises. validate_by: what of the tuning split chooses the weights that stay,
    the `loss` of a few draws or the family's `metric` in its own pipeline, where each speaker counts the same.
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
    warmup: int = Field(default=0, ge=0)
    validate_by: Literal["loss", "metric"] = "loss"
    validate_every: int = Field(ge=1)
    patience: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    seed: Seed


def _optional(field: FieldInfo) -> FieldInfo:
    """Return the same field, not required."""
    field = copy.copy(field)
    field.default = None
    return field


PruneOverrides: Any = create_model(  # what a model has in the place of its family's settings
    "PruneOverrides",
    __base__=Section,
    **{name: (field.annotation, _optional(field)) for name, field in PruneParams.model_fields.items()},  # type: ignore[call-overload]
)
