"""Which machines of a cluster may build which parts: a result must not depend on where it was made.

All have the libraries of the machine that the build was started on. Times are those of its processor, and GPUs are its
own or, where it has none, those of the cluster; a build declares both, so that every machine means the same by them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from stages.commands.schedule import TIMED, Part

NO_GPU = "none"
OF_GPU = ("gpu", "onnxruntime-gpu", "tensorrt")  # facts that only who runs CUDA has to have
OF_PROCESSOR = ("cpu",)
OF_OWNER = ("signing-key",)  # which stays where releases are made

Facts = Mapping[str, str]
"""What the stage `environment` writes down of a machine, by name."""


@dataclass(frozen=True)
class Machine:
    """A node of the cluster. slots: how many parts at a time."""

    node: str
    host: str
    slots: int
    gpus: float
    facts: Facts = field(hash=False)


def why_refused(found: Facts, wanted: Facts) -> str | None:
    """Explain in which library a machine differs from the one that the build was started on; None if in none."""
    ignored = {*OF_GPU, *OF_PROCESSOR, *OF_OWNER}
    for name in sorted((found.keys() | wanted.keys()) - ignored):
        if found.get(name) != wanted.get(name):
            return f"{name}: found {found.get(name)}, wanted {wanted.get(name)}"
    return None


def declare(here: Facts, others: Iterable[Facts]) -> dict[str, str]:
    """Return the facts that a build declares: this machine's processor, and the GPU that there is."""
    with_gpu = next((facts for facts in (here, *others) if facts["gpu"] != NO_GPU), here)
    return {name: here[name] for name in OF_PROCESSOR} | {name: with_gpu[name] for name in OF_GPU}


def takes(machine: Machine, part: Part, declared: Facts) -> bool:
    """Tell whether a part may be built on a machine; what it measures on a CPU, only on that of the build."""
    wanted = OF_GPU if part.on_gpu else OF_PROCESSOR if part.kind in TIMED else ()
    return all(machine.facts[name] == declared[name] for name in wanted)
