"""A Ray cluster: the machines of it that can build, and tasks that are sent to one of them."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from stages import environment
from stages.cluster import bootstrap, machines
from stages.cluster.machines import Machine
from stages.core.credentials import redacted
from stages.core.errors import UserError, first_line, from_library

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 120.0  # for a machine to say what it is: others' tasks may keep it busy
Report = Mapping[str, Any]
"""What `bootstrap.run` returns; its `trouble` is None or what came between."""


class Cluster:
    """A cluster that a build is connected to.

    machines: those that can build, by node. declared: the facts of the machine that the build's numbers are of.
    """

    def __init__(self, address: str, archive: bytes, show: Callable[[str], None]) -> None:
        """Connect and ask each machine what it is; `show` takes a line for each that is refused.

        archive: a tar file of the commit, whose code runs on the machines.

        Raises:
            UserError: Ray is not installed, nothing answers there, or no machine can build.
        """
        self.ray, self.show = _connect(address), show
        self.here = environment.facts()
        self.machines: dict[str, Machine] = {}
        self.declared: dict[str, str] = {}
        self._archive = self.ray.put(archive)
        self._refused: set[str] = set()
        self.look()
        if not self.machines:
            raise UserError(f"no machine of the cluster at {address} can build: the lines above say why")
        self.declared = machines.declare(self.here, (one.facts for one in self.machines.values()))

    def close(self) -> None:
        """Leave the cluster; what still runs for this build ends."""
        self.ray.shutdown()

    @property
    def slots(self) -> int:
        """Count the parts that all machines together can build at a time."""
        return sum(one.slots for one in self.machines.values())

    def look(self) -> None:
        """Forget machines that are gone, and ask new ones what they are."""
        nodes = {node["NodeID"]: node for node in self.ray.nodes() if node["Alive"] and _slots(node)}
        self.machines = {name: one for name, one in self.machines.items() if name in nodes}
        new = nodes.keys() - self.machines.keys() - self._refused
        asked = {name: self.submit(name, ["facts"]) for name in sorted(new)}
        for name, reference in asked.items():
            self._admit(nodes[name], self.report(reference, ANSWER_SECONDS))

    def _admit(self, node: Mapping[str, Any], report: Report) -> None:
        name, host = node["NodeID"], report.get("host", node["NodeManagerHostname"])
        why = report["trouble"] or machines.why_refused(report["facts"], self.here)
        if why:
            self._refused.add(name)
            self.show(redacted(f"machine {host} is refused: {why}"))
        else:
            gpus = node["Resources"].get("GPU", 0.0)
            self.machines[name] = Machine(name, host, _slots(node), gpus, report["facts"])

    def submit(
        self, node: str, arguments: Sequence[str], *, cpus: int = 1, gpus: float = 0, alone: bool = False
    ) -> Any:
        """Send a task of the worker's to a node; return Ray's reference to its report."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        task = self.ray.remote(bootstrap.run).options(
            num_cpus=cpus,
            num_gpus=gpus,
            max_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
        )
        facts = {environment.DECLARED: json.dumps(self.declared)} if self.declared else {}
        return task.remote(self._archive, [*arguments], facts, alone=alone)

    def ended(self, references: Sequence[Any], seconds: float) -> list[Any]:
        """Wait for so long that a task ends; return the references of those that did."""
        ready, _ = self.ray.wait([*references], num_returns=1, timeout=seconds)
        return list(ready)

    def report(self, reference: Any, seconds: float | None = None) -> Report:
        """Return a task's report, for which it may have so long, or one whose trouble is how its worker was lost."""
        try:
            return dict(self.ray.get(reference, timeout=seconds))
        except self.ray.exceptions.RayError as e:
            return {"trouble": f"the worker was lost: {type(e).__name__}: {first_line(e)}"}


def _slots(node: Mapping[str, Any]) -> int:
    """Return how many parts Ray lets run at a time on a node."""
    return int(node["Resources"].get("CPU", 0))


def _connect(address: str) -> Any:
    try:
        import ray
    except ModuleNotFoundError as e:
        raise UserError("`kiln repro --ray` needs Ray: `make .venv/extra-cluster`") from e
    host, _, port = address.removeprefix("ray://").rpartition(":")
    with from_library(f"connecting to Ray at {address}"):
        if port.isdigit():  # Ray itself tries for minutes
            socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
        ray.init(address=address, log_to_driver=False, logging_level="CRITICAL")
    ray.cloudpickle.register_pickle_by_value(bootstrap)
    return ray
