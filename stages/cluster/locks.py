"""Enter what workers built into this tree's dvc.lock files, each file once."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from stages.core.files import write_text


def merge(others: Iterable[Mapping[str, str]], stages: Collection[str]) -> None:
    """Write what others' lock files have of the stages, by the names that DVC takes, into those here.

    others: the text of each dvc.lock by its path.
    """
    entries: dict[str, dict[str, Any]] = {}
    for locks in others:
        for path, text in locks.items():
            found = YAML(typ="safe").load(text)["stages"]
            own = {name: entry for name, entry in found.items() if _address(path, name) in stages}
            entries.setdefault(path, {}).update(own)
    for path, new in entries.items():
        if new:
            _write(Path(path), new)


def _address(path: str, name: str) -> str:
    """Return the name that DVC takes for a stage of the dvc.yaml beside a lock file."""
    folder = Path(path).parent
    return name if folder == Path() else f"{folder.as_posix()}/dvc.yaml:{name}"


def _write(lock: Path, new: Mapping[str, Any]) -> None:
    yaml: Any = YAML(typ="safe")
    text = io.StringIO()
    yaml.default_flow_style, yaml.sort_base_mapping_type_on_output = False, False
    content: dict[str, Any] = {"schema": "2.0", "stages": {}}
    if lock.is_file():
        content = yaml.load(lock.read_text(encoding="utf-8"))
    content["stages"].update(new)
    yaml.dump(content, text)
    write_text(lock, text.getvalue())
