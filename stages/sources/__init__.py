"""Where bytes come from: `kind: X` in params.yaml is `stages/sources/X.py`, with `listing` and `fetch`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from stages.core.errors import UserError
from stages.core.params import Source

Result = TypeVar("Result")


def module(source: Source) -> Any:
    """The module that speaks to a source; imported late, because the hub's SDK takes its time."""
    return importlib.import_module(f"stages.sources.{source.kind}")


def first_good(
    name: str, sources: Sequence[Source], attempt: Callable[[Source], Result], wanted: str
) -> tuple[Source, Result]:
    """The first source for which `attempt` succeeds, and what it gave; those that failed are named on standard error.

    Raises:
        UserError: no source gave what was `wanted`; says why for each.
    """
    reasons = []
    for source in sources:
        try:
            result = attempt(source)
        except UserError as e:
            reasons.append(f"{source.kind} failed: {e}")
        else:
            for reason in reasons:
                print(f"{name}: source {reason}", file=sys.stderr)
            return source, result
    raise UserError("\n  ".join([f"{name}: no source gave {wanted}", *reasons]))
