"""What of a model can be pruned, as far as this machine knows it: for `add`, which writes how much is to go."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stages import models
from stages.core import layout
from stages.core.files import sha256
from stages.core.params import Checkpoint
from stages.core.params.origins import FolderSource
from stages.core.params.prune import PruneParams, RatioOf
from stages.core.pins import Pin
from stages.models.shared import weights

MOST = 2 / 3  # of what can be cut: emptier layers leave a refit little to work with


def pick(name: str, model: Checkpoint, settings: PruneParams, pin: Pin | None) -> tuple[RatioOf, str]:
    """Return what `settings.ratio` is to be of, and a line that says why.

    Raises:
        UserError: the model's config.yaml is here and not what its family reads, or nothing of the model can be cut.
    """
    with _find_checkpoint(name, model, pin) as folder:
        if folder is None:
            why = f"its config.yaml is not here before `kiln pin {name}`; any model can give that"
            return "prunable", f"{name}: prune has ratio {settings.ratio} of prunable: {why}"
        return _choose_ratio_of(name, model, settings, folder)


def _choose_ratio_of(name: str, model: Checkpoint, settings: PruneParams, folder: Path) -> tuple[RatioOf, str]:
    from stages import prune
    from stages.models.shared import checkpoint

    family = models.PRUNABLE.load(model.family)
    config = family.read_config(folder)
    dense = checkpoint.weightless(family.build, config)
    goal = prune.goal(family, dense, config, settings.model_copy(update={"ratio_of": "prunable"}))
    share = goal.prunable / goal.parameters
    enough = settings.ratio_of == "all" and settings.ratio <= MOST * share
    of: RatioOf = "all" if enough else "prunable"
    held = f"{' and '.join(goal.steps)} hold {share:.1%} of {goal.parameters:,} parameters"
    return of, f"{name}: prune has ratio {settings.ratio} of {of}: {held}"


@contextmanager
def _find_checkpoint(name: str, model: Checkpoint, pin: Pin | None) -> Iterator[Path | None]:
    """Find a folder with all of a checkpoint but perhaps the weights: fetched, a source, or `pin`'s downloads."""
    from stages.models.shared.checkpoint import CONFIG

    own = [source.path for source in model.sources if isinstance(source, FolderSource)]
    found = next((folder for folder in (layout.checkpoint(name), *own) if (folder / CONFIG).is_file()), None)
    with tempfile.TemporaryDirectory() as scratch:
        yield found or (Path(scratch) if _copy_downloads(pin, Path(scratch)) else None)


def _copy_downloads(pin: Pin | None, folder: Path) -> bool:
    """Copy a model's pinned files without the weights from the cache; tell whether all were there and right."""
    from stages.sources import modelscope

    if pin is None or pin.hub_id is None:
        return False
    for file in pin.files.keys() - set(weights.NAMES):
        pinned = pin.files[file]
        download = modelscope.place(file, pinned)
        if not download.is_file() or sha256(download) != pinned.sha256:
            return False
        shutil.copyfile(download, folder / file)
    return True
