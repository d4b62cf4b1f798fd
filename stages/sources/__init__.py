"""Where bytes come from: `kind: X` in params.yaml is `stages/sources/X.py`, with `listing` and `fetch`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from stages.core.errors import UserError, first_of
from stages.core.params.origins import ModelScopeSource, Source
from stages.core.pins import PinnedFile

Result = TypeVar("Result")


def module(source: Source) -> Any:
    """Import the module that speaks to a source, as late as this because the hub's SDK takes its time."""
    return importlib.import_module(f"stages.sources.{source.kind}")


def forget(source: Source, files: Mapping[str, PinnedFile]) -> None:
    """Remove the downloads of `files`, which are in their place now; a wheel stays, as it serves other models too."""
    if isinstance(source, ModelScopeSource):
        module(source).forget(files)


def require_digests(
    found: Mapping[str, PinnedFile | None], names: Iterable[str], instead: str
) -> dict[str, PinnedFile]:
    """Pick the named files of a listing, each with size and digest.

    Raises:
        UserError: one has no size or no digest; says what to do `instead`.
    """
    files = {name: found.get(name) for name in names}
    unsure = [name for name, file in files.items() if file is None]
    if unsure:
        raise UserError(
            f"no size or no sha256 is listed for {first_of(unsure)}, so a download could not be checked; get the files "
            f"in a way you trust and {instead}"
        )
    return {name: file for name, file in files.items() if file}


def first_good(
    name: str, sources: Sequence[Source], attempt: Callable[[Source], Result], wanted: str
) -> tuple[Source, Result]:
    """Return the first source for which `attempt` succeeds, and its result; print why others failed to stderr.

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
