"""Stage `reference`: what the fp32 torch model says of the evaluation data, once for all builds to compare with."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from functools import partial

from stages.core import layout, params
from stages.core.errors import entrypoint, key_from
from stages.core.files import new_folder
from stages.core.parallel import in_shares
from stages.corpora import manifest
from stages.models.checkpoint import torch_networks


def main(argv: Sequence[str]) -> None:
    """`python -m stages.reference MODEL`."""
    import torch

    p = params.load()
    name = key_from(argv, "reference", p.models)
    model = p.models[name]
    family = importlib.import_module(f"stages.models.{model.family}")
    torch.set_num_threads(1)  # sums in one order: the baseline's bytes repeat
    recordings = manifest.read(layout.corpus(model.dataset), p.evaluate.split)
    checkpoint = layout.checkpoint(name)
    torch_model = family.load(checkpoint)
    graph_set = family.graph_set(torch_model)
    artifact = graph_set, torch_networks(graph_set, family.export_modules(torch_model))
    with new_folder(layout.reference(name)) as folder:
        for mode in family.MODES:
            outcomes = in_shares(partial(family.score, checkpoint, artifact, mode), recordings)
            family.write_outcomes(folder, mode, outcomes)
    print(f"{name}: {len(recordings)} recordings, {' and '.join(family.MODES)}")


if __name__ == "__main__":
    entrypoint(main)
