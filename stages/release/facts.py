"""All that is known of a build that is released."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stages.core.params import Model, Target
from stages.core.params.recipes import DynamicRecipe, Recipe, StaticRecipe
from stages.core.pins import Pin


@dataclass(frozen=True)
class Facts:
    """A build, the commit and the checkpoint that it was made of, how, and its entry in reports/summary.json.

    license_origin: where the licence was read. environment: the versions of the libraries, and the machine.
    """

    build: str
    commit: str
    model: Model
    pin: Pin
    license: str
    license_origin: str
    target: Target
    recipe: Recipe | None
    environment: Mapping[str, str]
    entry: Mapping[str, Any]

    @property
    def is_integer(self) -> bool:
        """Tell whether its graphs are INT8."""
        return isinstance(self.recipe, DynamicRecipe | StaticRecipe)

    @property
    def precision(self) -> str:
        """Name the precision of its weights."""
        return "int8" if self.is_integer else self.recipe.kind if self.recipe else "fp32"
