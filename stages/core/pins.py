"""Lock files: size and digest of every file of a checkpoint, or of a data set's manifests: what bytes are right."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from stages.core import layout
from stages.core.errors import UserError
from stages.core.files import check_sha256, safe_relative, write_json
from stages.core.params import Checkpoint
from stages.core.params.origins import ModelScopeDataset, ModelScopeSource
from stages.core.params.section import Sha256


class PinnedFile(BaseModel):
    """What one file must be; `size` in bytes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: Annotated[int, Field(gt=0)]  # no file that a network is built from is empty
    sha256: Sha256

    def check(self, path: Path, what: str) -> None:
        """Raise UserError unless the file at `path` has this size and digest."""
        size = path.stat().st_size
        if size != self.size:
            raise UserError(f"{what}: found {size} bytes, wanted {self.size}")
        check_sha256(path, self.sha256, what)


class Pin(BaseModel):
    """The files of a checkpoint or a data set, whatever their source; the hub's id and revision where it is one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hub_id: str | None = None
    revision: str | None = None
    files: dict[str, PinnedFile] = Field(min_length=1)

    @field_validator("files")
    @classmethod
    def _inside(cls, value: dict[str, PinnedFile]) -> dict[str, PinnedFile]:
        for name in value:
            try:
                safe_relative(name, "files")
            except UserError as e:
                raise ValueError(str(e)) from e
        return value


Pinned = Checkpoint | ModelScopeDataset  # what has a lock file


def hub_source(pinned: Pinned) -> ModelScopeSource | None:
    """Find the first source that is the hub."""
    sources = [pinned] if isinstance(pinned, ModelScopeDataset) else pinned.sources
    return next((source for source in sources if isinstance(source, ModelScopeSource)), None)


def read(name: str) -> Pin | None:
    """Read a lock file; None where there is none.

    Raises:
        UserError: it is not what `write` leaves.
    """
    path = layout.pin(name)
    try:
        return Pin.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as e:
        first = e.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise UserError(f"{path}: {where}: {first['msg']}; remove it and run `kiln pin {name}`") from e


def demand(name: str, pinned: Pinned) -> Pin:
    """Read the lock file of a model or a data set, which must be of the revision that params.yaml has.

    Raises:
        UserError: it is missing or of another revision; names the command that makes it.
    """
    pin, hub, mend = read(name), hub_source(pinned), f"run `kiln pin {name}`"
    if pin is None:
        raise UserError(f"{name}: no lock file {layout.pin(name)}, which says what bytes are right; {mend}")
    found, wanted = (pin.hub_id, pin.revision), (hub.hub_id, hub.revision) if hub else (None, None)
    if found != wanted:
        raise UserError(f"{layout.pin(name)} is of {_version(found)}, params.yaml wants {_version(wanted)}; {mend}")
    return pin


def _version(version: tuple[str | None, str | None]) -> str:
    return " at ".join(part for part in version if part) or "no hub"


def write(name: str, pin: Pin) -> None:
    """Write a lock file, files in order of name."""
    files = dict(sorted(pin.files.items()))
    write_json(layout.pin(name), pin.model_copy(update={"files": files}).model_dump(exclude_none=True))
