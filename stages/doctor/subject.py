"""The builds that `kiln doctor` is asked about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stages.core import plan
from stages.core.errors import UserError, did_you_mean
from stages.core.params import UNQUANTIZED, Model, Params
from stages.core.params.recipes import Recipe
from stages.core.params.section import Runtime
from stages.core.plan import Build


@dataclass(frozen=True)
class Subject:
    """Models of params.yaml with all that is configured for them."""

    p: Params
    models: Mapping[str, Model]

    @property
    def builds(self) -> dict[str, Build]:
        """Return the models' builds by name."""
        return {name: build for name, build in plan.derive(self.p).builds.items() if build.model in self.models}

    @property
    def runtimes(self) -> dict[Runtime, bool]:
        """Return the runtimes of the builds, each with whether a required build needs it."""
        found: dict[Runtime, bool] = {}
        for build in self.builds.values():
            runtime = self.p.targets[build.target].runtime
            found[runtime] = found.get(runtime, False) or self.p.has_to_pass(build.model, build.target)
        return found

    def recipes(self, runtime: Runtime) -> dict[str, Recipe]:
        """Return what graphs for a runtime are quantized by, named by build."""
        found = {}
        for name, build in self.builds.items():
            target = self.p.targets[build.target]
            if target.runtime == runtime and target.graph not in UNQUANTIZED:
                found[name] = self.p.recipe(build.model, target.variant, target.graph)
        return found


def select(p: Params, name: str | None) -> Subject:
    """Return one model of params.yaml, or all that have targets.

    Raises:
        UserError: there is no model of that name.
    """
    if name is None:
        return Subject(p, {key: model for key, model in p.models.items() if model.targets})
    if name not in p.models:
        raise UserError(f"doctor: params.yaml has no model {name!r}; {did_you_mean(name, p.models)}")
    return Subject(p, {name: p.models[name]})
