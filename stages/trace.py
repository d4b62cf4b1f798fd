"""Stage `trace`: networks as TorchScript, for targets of that runtime.

What torch cannot trace is recorded with the reason and reported as unavailable.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stages import models
from stages.core import graphs, layout, params, plan
from stages.core.errors import UserError, entrypoint, key_from
from stages.core.files import new_folder, sha256, write_json
from stages.models.protocols import Family
from stages.runtimes import torchscript


def trace(family: Family[Any], checkpoint: Path, folder: Path) -> dict[str, str]:
    """Write the networks of a checkpoint, and their graph set, into `folder`; return the digest of each file.

    Raises:
        UserError: torch cannot trace one.
    """
    model = family.load(checkpoint)
    graph_set, modules = family.graph_set(model), family.export_modules(model)
    graphs.write(folder, graph_set)
    digests = {}
    for name, graph in graph_set.graphs.items():
        place = folder / Path(graph.file).with_suffix(torchscript.SUFFIX)
        torchscript.trace(modules[name], graph, place)
        digests[place.name] = sha256(place)
    return digests


def main(argv: Sequence[str]) -> None:
    """Run `python -m stages.trace MODEL-TARGET`."""
    import torch

    p = params.load()
    lines = plan.derive(p).trace
    name = key_from(argv, "trace", lines)
    line, why, digests = lines[name], None, {}
    family = models.load(p.models[line.model].family)
    with new_folder(layout.graphs(line.model, line.variant, line.target)) as folder:
        try:
            digests = trace(family, layout.checkpoint(line.model, line.variant), folder)
        except UserError as e:
            why = str(e)
        record = {"version": torch.__version__, "unavailable": why, "files": digests}
        write_json(folder / "trace.json", record)
    print(f"{name}: {why or f'{len(digests)} network(s) traced'}")


if __name__ == "__main__":
    entrypoint(main)
