"""The widths that pruning changes, of a family whose layers stages/pruning/narrowing.py narrows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from stages.models.shared import checkpoint
from stages.pruning import narrowing


@dataclass(frozen=True)
class Widths:
    """What a family's names for its widths mean. Its functions are what `Prunable` asks for under their names.

    names: by the config's key of a width, a pattern of the names of the layers that have it. build, with_widths: the
    family's own.
    """

    names: Mapping[str, str]
    build: Callable[[dict[str, Any]], Any]
    with_widths: Callable[[dict[str, Any], Mapping[str, int]], dict[str, Any]]

    def widths(self, model: Any) -> dict[str, int]:
        """Return the layer widths that pruning changes."""
        return narrowing.widths(model, self.names)

    def counter(self, config: dict[str, Any]) -> Callable[[Mapping[str, int]], int]:
        """Return a function that counts the parameters of the model with other widths, by the keys of `widths`."""
        return narrowing.counter(checkpoint.weightless(self.build, config), self.names)

    def narrowed(self, config: dict[str, Any], removed: float, steps: Mapping[str, int]) -> dict[str, Any]:
        """Choose the widths, multiples of `steps`, that remove closest to `removed` of all parameters."""
        model = checkpoint.weightless(self.build, config)
        return self.with_widths(config, narrowing.narrowed(model, self.names, removed, steps))
