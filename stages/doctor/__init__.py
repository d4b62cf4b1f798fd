"""What `kiln doctor` looks at: each module has `check`, which yields a finding for each thing it looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from stages.doctor import checkpoints, graphs, libraries, locks, machine, network, torch_build
from stages.doctor.finding import Finding
from stages.doctor.subject import Subject

CHECKS: tuple[Callable[[Subject], Iterator[Finding]], ...] = (
    libraries.check,
    torch_build.check,
    graphs.check,
    checkpoints.check,
    machine.check,
    network.check,
    locks.check,
)


def examine(subject: Subject) -> list[Finding]:
    """Return everything that was found, in the order of the checks."""
    return [finding for check in CHECKS for finding in check(subject)]
