"""Stage `fetch`: a checkpoint's pinned files, from the first source that has those very bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stages import models, sources
from stages.core import layout, params, pins, progress
from stages.core.errors import entrypoint, key_from
from stages.core.files import new_folder
from stages.core.params import Checkpoint
from stages.core.params.origins import Source
from stages.core.pins import Pin


def fetch(name: str, model: Checkpoint, pin: Pin, place: Path) -> Source:
    """Put the pinned files into `place` and return the source they came from.

    Every file's size and SHA-256 are checked after the copy; the sources that failed or had other bytes
    before the one that served are named on standard error. No copy of them stays in the download cache.

    Raises:
        UserError: no source gave all files; says why for each.
    """

    def attempt(source: Source) -> None:
        with new_folder(place) as folder:
            sources.module(source).fetch(source, pin.files, folder)
            for file, pinned in progress.each(list(pin.files.items()), "files checked"):
                pinned.check(folder / file, f"{name}: {file} from {source.kind}")

    source, _ = sources.first_good(name, model.sources, attempt, "the pinned files")
    sources.forget(source, pin.files)
    return source


def main(argv: Sequence[str]) -> None:
    """Run `python -m stages.fetch MODEL`; also names what its config.yaml lacks, before anything is built from it."""
    table = params.load().models
    name = key_from(argv, "fetch", table)
    model, pin = table[name], pins.demand(name, table[name])
    source = fetch(name, model, pin, layout.checkpoint(name))
    models.load(model.family).read_config(layout.checkpoint(name))
    print(f"{name}: {len(pin.files)} files from {source.kind}, every size and digest as pinned")


if __name__ == "__main__":
    entrypoint(main)
