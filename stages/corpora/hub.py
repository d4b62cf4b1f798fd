"""A data set of the hub: its manifests are pinned like a checkpoint, and they have the digest of each WAV file."""

from __future__ import annotations

import tempfile
from pathlib import Path

from stages import sources
from stages.core import pins
from stages.core.errors import UserError, first_of
from stages.core.params.origins import ModelScopeDataset, Source
from stages.core.pins import PinnedFile
from stages.corpora import manifest

MANIFESTS = tuple(f"{split}.jsonl" for split in manifest.SPLITS)
INSTEAD = "name their folder in params.yaml: {kind: manifest, path: ...}"


def list_files(source: Source) -> tuple[dict[str, PinnedFile], list[str]]:
    """List the manifests, which decide what bytes of the WAV files are right, and the names of what is not needed.

    Raises:
        UserError: a manifest is missing or not as it should be, or a WAV file that one names is not on the hub, or
            another there.
    """
    found: dict[str, PinnedFile | None] = sources.module(source).listing(source, lambda _: True)
    missing = [name for name in MANIFESTS if name not in found]
    if missing:
        raise UserError(f"no {' and no '.join(missing)} among {first_of(sorted(found))}")
    files = sources.require_digests(found, MANIFESTS, INSTEAD)
    with tempfile.TemporaryDirectory() as place:
        sources.module(source).fetch(source, files, Path(place))
        try:
            audio = _audio(Path(place), found)
        except UserError as e:
            raise UserError(str(e).replace(f"{place}/", "")) from e
    return files, sorted(found.keys() - files.keys() - audio.keys())


def make(dataset: ModelScopeDataset, folder: Path) -> None:
    """Download the pinned manifests and the WAV files that they name into `folder`.

    Raises:
        UserError: the lock file is missing, the hub cannot be reached, or has other bytes than the pinned ones.
    """
    pin, source = pins.demand(Path(dataset.path).stem, dataset), sources.module(dataset)
    source.fetch(dataset, pin.files, folder)
    source.fetch(dataset, _audio(folder, source.listing(dataset, lambda _: True)), folder)
    for name, pinned in pin.files.items():
        pinned.check(folder / name, f"{dataset.hub_id}: {name}")


def _audio(folder: Path, found: dict[str, PinnedFile | None]) -> dict[str, PinnedFile]:
    """Look up in a listing the WAV files that the manifests in `folder` name, with the manifests' digests.

    Raises:
        UserError: one is not listed, or has another digest there.
    """
    lines = [line for split in manifest.SPLITS for line in manifest.read(folder, split)]
    wanted = {line.wav: str(line.sha256) for line in lines if line.wav}
    absent = [name for name in wanted if name not in found]
    if absent:
        raise UserError(f"the manifests name {first_of(absent)}, which the hub does not have")
    audio = sources.require_digests(found, wanted, INSTEAD)
    other = [name for name, file in audio.items() if file.sha256 != wanted[name]]
    if other:
        raise UserError(f"the hub has other bytes than the manifests say of {first_of(other)}")
    return audio
