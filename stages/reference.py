"""Stage `reference`: what the fp32 torch model says of the evaluation data, once for all builds to compare with."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from stages import models
from stages.core import layout, params
from stages.core.errors import UserError, entrypoint, key_from
from stages.core.files import new_folder, write_json
from stages.core.parallel import in_shares
from stages.core.statistics import pool_counts
from stages.corpora import manifest
from stages.corpora.manifest import Recording
from stages.evaluation import finite
from stages.models.protocols import Family
from stages.models.shared.checkpoint import torch_artifact


def write_reference(family: Family[Any], checkpoint: Path, recordings: Sequence[Recording], folder: Path) -> None:
    """Write what the fp32 torch model of a checkpoint outputs on the recordings, in every mode of its family."""
    import torch

    torch.set_num_threads(1)  # sums in one order: the baseline's bytes repeat
    artifact = torch_artifact(family, family.load(checkpoint))
    scored = in_shares(partial(finite.score, family, checkpoint, artifact), recordings)
    if broken := [r.id for r, (_, is_finite) in zip(recordings, scored, strict=True) if not is_finite]:
        raise UserError(
            f"{checkpoint}: the fp32 model gives NaN or infinite numbers in {len(broken)} of {len(recordings)} "
            f"recordings, first in {broken[0]}: no build can be held to it"
        )
    for mode in family.MODES:
        family.write_outcomes(folder, mode, [outcomes[mode] for outcomes, _ in scored])


def write_quality(family: Family[Any], checkpoint: Path, recordings: Sequence[Recording], folder: Path) -> None:
    """Write every metric of what `write_reference` wrote, over all recordings; their truth is known."""
    quality: dict[str, float | None] = {}
    for mode in family.MODES:
        outcomes = family.read_outcomes(folder, mode)
        counts = family.measure(checkpoint, recordings, outcomes, outcomes)
        quality |= {f"{mode}_{name}": pool_counts(metric, name, counts) for name, metric in family.METRICS.items()}
    write_json(layout.quality(folder), quality)


def main(argv: Sequence[str]) -> None:
    """Run `python -m stages.reference MODEL`."""
    p = params.load()
    name = key_from(argv, "reference", p.models)
    model = p.models[name]
    family = models.load(model.family)
    recordings = manifest.read(layout.corpus(model.dataset), p.evaluate.split)
    with new_folder(layout.reference(name)) as folder:
        write_reference(family, layout.checkpoint(name), recordings, folder)
        write_quality(family, layout.checkpoint(name), recordings, folder)
    print(f"{name}: {len(recordings)} recordings, {' and '.join(family.MODES)}")


if __name__ == "__main__":
    entrypoint(main)
