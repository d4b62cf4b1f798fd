"""What a build may lose and must gain to pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from stages.core.params.section import Key, Section


class RelativeLimit(Section):
    """The largest loss that passes, as a share of the errors that the baseline makes, and never under `least`."""

    relative: float = Field(gt=0)
    least: float = Field(gt=0)


Limit = Annotated[float, Field(ge=0)] | RelativeLimit


class Gate(Section):
    """The largest loss and the smallest speedup that pass, by family (or `pipeline`) and metric or latency case.

    worst: how many times its limit a metric may lose in the one condition, or for the one speaker, where it loses most;
    null: no matter. optional: models and pipelines that need not pass, each with the reason, which the report says.
    """

    accuracy: dict[Key, dict[str, Limit]]
    worst: float | None = Field(default=None, ge=1)
    speedup: dict[Key, dict[str, Annotated[float, Field(gt=0)]]] = Field(default_factory=dict)
    optional: dict[Key, Annotated[str, Field(min_length=1)]] = Field(default_factory=dict)


def absolute_limit(limit: Limit, measured: Mapping[str, Any]) -> float:
    """Return a limit in a measured metric's own unit; the errors of a score are what it lacks to 1."""
    if not isinstance(limit, RelativeLimit):
        return limit
    if (baseline := measured["baseline"]) is None:
        return limit.least
    errors: float = 1 - baseline if measured["higher_is_better"] else baseline
    return max(limit.least, limit.relative * errors)
