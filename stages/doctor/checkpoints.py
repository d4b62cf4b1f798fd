"""Whether checkpoints that are here can be built: pinned, configured as their family wants, and without remote code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stages import environment, models
from stages.core import layout, pins
from stages.core.errors import UserError
from stages.core.files import read_json
from stages.core.params import Model
from stages.core.params.origins import FolderSource
from stages.doctor.finding import Finding
from stages.doctor.subject import Subject
from stages.models.shared import yaml_config
from stages.models.shared.checkpoint import CONFIG

REMOTE = ("trust_remote_code", "remote_code", "auto_map", "allow_remote")  # FunASR's, transformers', the hub's
JSON = ("configuration.json", "config.json")
CODE = ("*.py", "requirements.txt")


def check(subject: Subject) -> Iterator[Finding]:
    """Yield what is found of each lock file and, where a model's files are here, of its configuration."""
    for name, each in environment.pinned(subject.p).items():  # other models' too: the first stage reads all
        try:
            pins.demand(name, each)
        except UserError as e:
            yield Finding(name, str(e), "blocks", "a lock file", "no stage starts", f"kiln pin {name}")
    for name, model in subject.models.items():
        folder = folder_of(name, model)
        if folder is None:
            yield Finding(name, "its checkpoint is not here yet: `fetch` checks it")
            continue
        yield _configuration(name, model, folder)
        yield from _remote_code(name, folder)


def folder_of(name: str, model: Model) -> Path | None:
    """Return the folder that has the model's checkpoint: as fetched, or else one of its sources."""
    sources = [source.path for source in model.sources if isinstance(source, FolderSource)]
    return next((place for place in (layout.checkpoint(name), *sources) if (place / CONFIG).is_file()), None)


def _configuration(name: str, model: Model, folder: Path) -> Finding:
    try:
        models.load(model.family).read_config(folder)
    except UserError as e:
        fix = f"correct the file, then `kiln pin {name}`; or another family in params.yaml"
        return Finding(name, str(e), "blocks", f"what the family {model.family} reads", "it cannot be built", fix)
    return Finding(name, f"{folder / CONFIG}: as the family {model.family} wants it")


def _remote_code(name: str, folder: Path) -> Iterator[Finding]:
    """Yield what a checkpoint wants to have executed: Kiln never does, and builds FunASR's own class of that name."""
    asked = [f"{file}: {key}" for file, settings in _settings(folder) for key in _keys(settings) if key in REMOTE]
    asked += sorted(path.name for pattern in CODE for path in folder.glob(pattern))
    if asked:
        consequence = "its code is never run: what it changes of the network is not in the build"
        fix = "compare the first report's truth with the card's, or leave the model out"
        yield Finding(name, ", ".join(asked), "warning", "no code of the checkpoint's own", consequence, fix)


def _settings(folder: Path) -> Iterator[tuple[str, Any]]:
    """Yield the settings files of a checkpoint that can be read, by name."""
    for file in (CONFIG, *JSON):
        try:
            if (folder / file).is_file():
                yield file, yaml_config.read(folder / file) if file == CONFIG else read_json(folder / file)
        except UserError:  # of config.yaml it was said; nobody here reads the others
            continue


def _keys(settings: Any) -> Iterator[str]:
    """Yield each key, at any depth, whose value is not false or empty."""
    children = settings.values() if isinstance(settings, Mapping) else settings if isinstance(settings, list) else ()
    if isinstance(settings, Mapping):
        yield from (str(key) for key, value in settings.items() if value)
    for child in children:
        yield from _keys(child)
