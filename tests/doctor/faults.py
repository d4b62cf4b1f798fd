"""What a check found that is not as it should be."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from stages.core import params
from stages.doctor.finding import Finding
from stages.doctor.subject import Subject, select

Check = Callable[[Subject], Iterator[Finding]]


def of(check: Check, model: str | None = None) -> list[Finding]:
    """The findings of a check that are a warning or block something; each has all that a user needs."""
    found = [finding for finding in check(select(params.load(), model)) if finding.level != "ok"]
    assert all((f.found and f.wanted and f.consequence and f.fix) for f in found)
    return found


def one(check: Check, model: str | None = None, *, named: str = "") -> Finding:
    """The only finding that is not as it should be, of those with that name."""
    [finding] = [f for f in of(check, model) if named in {"", f.check}]
    return finding
