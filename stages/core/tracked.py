"""Was what a stage read of params.yaml still there when it ended? DVC writes into its lock what the file says then."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stages.core.errors import UserError
from stages.core.params import PARAMS, yaml_text


def refuse_changed(before: str | None, stage: str) -> None:
    """Compare what DVC tracks of params.yaml for a stage, by its name, with what it was.

    before: the file's text when the stage began, or None where there was none.

    Raises:
        UserError: a value that the stage depends on is another now: what it made is of neither for certain.
    """
    after = text()
    if before is None or after is None or after == before:
        return
    old, new = (yaml_text.parse(written, str(PARAMS)) for written in (before, after))
    for key in _tracked(stage):
        was, now = _value(old, key), _value(new, key)
        if was != now:
            raise UserError(f"params.yaml changed while this ran: {key} was {was!r} and is {now!r}; run it again")


def text() -> str | None:
    """Return params.yaml as it is now, or None where there is none."""
    return yaml_text.read(PARAMS) if PARAMS.is_file() else None


def _tracked(name: str) -> Iterator[str]:
    """Yield the keys of params.yaml that DVC tracks for the stage of that name; none outside a DVC repository."""
    from dvc.dependency import ParamsDependency
    from dvc.exceptions import NotDvcRepoError
    from dvc.repo import Repo

    try:
        stages = Repo().index.stages
    except NotDvcRepoError:
        return
    for stage in stages:
        if getattr(stage, "name", None) == name:
            yield from (
                key for dep in stage.deps if isinstance(dep, ParamsDependency) for key in dep.params or ()
                if dep.def_path.endswith(PARAMS.name)
            )  # fmt: skip


def _value(settings: Any, key: str) -> Any:
    """Return what stands at a dotted key, or None where nothing does."""
    for step in key.split("."):
        settings = settings.get(step) if isinstance(settings, dict) else None
    return settings
