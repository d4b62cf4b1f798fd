"""Where the bytes of checkpoints and data sets may come from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from stages.core.files import safe_relative
from stages.core.params.section import Key, Section, Seed, Sha256, Split


class Archive(Section):
    """One file of the Python package index, pinned by name and digest."""

    project: str
    file: str
    sha256: Sha256

    @field_validator("file")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        if len(safe_relative(value, "an archive").parts) != 1:
            raise ValueError("must be a file name without a folder")
        return value


class ModelScopeSource(Section):
    """The ModelScope hub, by the model's id and revision."""

    repository: ClassVar[Literal["model", "dataset"]] = "model"  # what the hub calls it
    kind: Literal["modelscope"]
    hub_id: str = Field(pattern=r"^\w[\w.-]*/\w[\w.-]*$")
    revision: str = Field(min_length=1)

    @field_validator("revision")
    @classmethod
    def _pinned(cls, value: str) -> str:
        if value in {"master", "main"} or not re.fullmatch(r"v?\d[\w.]*|[0-9a-f]{40}", value):
            raise ValueError(
                f"{value!r} can move; wanted a version tag such as v2.0.4 or a 40-hex commit, as "
                "`git ls-remote` lists them"
            )
        return value


class WheelSource(Section):
    """A wheel that carries the checkpoint's files; read as an archive, never installed."""

    kind: Literal["wheel"]
    archive: Archive
    folder: str


class FolderSource(Section):
    """A folder on this machine, such as an air-gapped mirror; a relative path is the repository's own."""

    kind: Literal["folder"]
    path: Path


Source = Annotated[ModelScopeSource | WheelSource | FolderSource, Field(discriminator="kind")]


class _GeneratedDataset(Section):
    """What every data set has that is made here. long: evaluation recordings of 30 to 60 s, beside the others."""

    path: str
    seed: Seed
    long: int = Field(default=0, ge=0)


class MixturesDataset(_GeneratedDataset):
    """Labelled mixtures that `stages/corpora/vad_mixtures.py` makes from real recordings and synthetic voices."""

    kind: Literal["vad_mixtures"]
    archives: dict[Key, Archive]
    mixtures: dict[Split, Annotated[int, Field(ge=1)]]

    @property
    def counts(self) -> Mapping[Split, int]:
        """Return how many recordings each split has, without the long ones."""
        return self.mixtures


class SyntheticDataset(_GeneratedDataset):
    """Speech and text that the module of `stages/corpora/` named as `kind` makes from nothing but a seed."""

    kind: Literal[
        "spoken_commands",
        "hotword_commands",
        "conversations",
        "emotional_prosody",
        "punctuated_text",
        "speaker_trials",
        "tagged_commands",
    ]
    items: dict[Split, Annotated[int, Field(ge=1)]]

    @property
    def counts(self) -> Mapping[Split, int]:
        """Return how many recordings or texts each split has, without the long ones."""
        return self.items


Generated = MixturesDataset | SyntheticDataset


class ManifestDataset(Section):
    """The user's own recordings: a folder with one JSONL manifest for each split."""

    kind: Literal["manifest"]
    path: str


class ModelScopeDataset(ModelScopeSource):
    """Manifests and WAV files in a data set of the ModelScope hub; `path` is its lock file, as `pin` writes it."""

    repository: ClassVar[Literal["model", "dataset"]] = "dataset"
    path: str


Dataset = Annotated[Generated | ManifestDataset | ModelScopeDataset, Field(discriminator="kind")]
