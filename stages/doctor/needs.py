"""What builds begin with, checkpoints and data sets, and where each that is not here can be had."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stages.core import layout, pins
from stages.core.errors import UserError
from stages.core.params import Model
from stages.core.params.origins import (
    Archive,
    Dataset,
    FolderSource,
    ManifestDataset,
    MixturesDataset,
    ModelScopeDataset,
    Source,
    WheelSource,
)
from stages.doctor.subject import Subject
from stages.sources import index

Place = Literal["hub", "package index"]
FOLDER_SOURCE = "put `{kind: folder, path: ...}` first among `sources` in params.yaml"


@dataclass(frozen=True)
class Need:
    """Something that is not here, and what may give it: nothing where it has to lie in a folder of this machine."""

    model: str
    what: str
    places: frozenset[Place]
    fix: str


def missing(subject: Subject) -> Iterator[Need]:
    """Yield what is not here of what the builds begin with."""
    for name, model in subject.models.items():
        if not layout.checkpoint(name).is_dir() and not any(_is_here(name, source) for source in model.sources):
            places = frozenset(place for source in model.sources if (place := _place(source)))
            yield Need(name, _sources(model), places, FOLDER_SOURCE if places else "copy them there")
        dataset = subject.p.datasets[model.dataset]
        if not layout.corpus(model.dataset).is_dir() and (places_of_data := _lacks(dataset)) is not None:
            yield Need(name, f"its data set {model.dataset}", places_of_data, _fix_data(dataset))


def _fix_data(dataset: Dataset) -> str:
    """Return how a data set is had without whom it is had from."""
    if isinstance(dataset, ManifestDataset):
        return f"copy them to {dataset.path}"
    if isinstance(dataset, MixturesDataset):
        return f"copy {' and '.join(archive.file for archive in dataset.archives.values())} to {index.FOLDER}"
    return "make it a data set of the kind `manifest` in params.yaml, with its files in a folder"


def _sources(model: Model) -> str:
    folders = [str(source.path) for source in model.sources if isinstance(source, FolderSource)]
    return "its checkpoint" + (f", which is not whole in {' and '.join(folders)}" if folders else "")


def _place(source: Source) -> Place | None:
    if isinstance(source, FolderSource):
        return None
    return "package index" if isinstance(source, WheelSource) else "hub"


def _is_here(name: str, source: Source) -> bool:
    """Tell whether a source needs no network: a folder with all that is pinned, or a wheel that was downloaded."""
    if isinstance(source, WheelSource):
        return _is_downloaded(source.archive)
    return isinstance(source, FolderSource) and _is_whole(name, source.path)


def _is_whole(name: str, folder: Path) -> bool:
    try:
        pin = pins.read(name)
    except UserError:  # which the check of checkpoints tells
        return False
    return pin is not None and all((folder / file).is_file() for file in pin.files)


def _is_downloaded(archive: Archive) -> bool:
    return index.place(archive).is_file()


def _lacks(dataset: Dataset) -> frozenset[Place] | None:
    """Return what may give a data set that is not here, or None where it is, or is made of nothing."""
    if isinstance(dataset, ModelScopeDataset):
        return frozenset({"hub"})
    if isinstance(dataset, MixturesDataset) and not all(map(_is_downloaded, dataset.archives.values())):
        return frozenset({"package index"})
    if isinstance(dataset, ManifestDataset) and not Path(dataset.path).is_dir():
        return frozenset()
    return None
