"""`python -m stages pin MODEL`: write down the size and digest of every file that a model is made of.

The files are loaded first: a digest makes whatever was behind it right for good, a web page too.
"""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from stages import sources
from stages.commands import catalogue
from stages.core import layout, params, pins
from stages.core.errors import UserError
from stages.core.params import Model, Source
from stages.core.pins import Pin, PinnedFile
from stages.models import weights

# What FunASR reads of a checkpoint folder: weights, configuration, CMVN, tokens and word lists. A hub
# repository also has a card, figures, example audio and at times code, which nothing here needs.
TAKEN = ("model.pt", "config.yaml", "configuration.json", "am.mvn", "tokens.*", "seg_dict", "jieba*")
NEEDED = ("model.pt", "config.yaml")


def pin(name: str, *, force: bool) -> None:
    """Ask the model's first source that answers for its files and write pins/NAME.json; print what changed.

    Raises:
        UserError: no source answered with what a checkpoint needs, a file of a revision that was pinned before has
            other bytes now and `force` is not set, or the files are not a checkpoint of the model's family.
    """
    model = catalogue.find(name, params.load())
    old, hub = pins.read(name), pins.hub_source(model)
    source, (files, left_out) = sources.first_good(name, model.sources, _taken, "a list of files to pin")
    new = Pin(hub_id=hub and hub.hub_id, revision=hub and hub.revision, files=files)
    size, others = sum(file.size for file in files.values()), ", ".join(left_out) or "none"
    print(f"{name}: {len(files)} files, {size:,} bytes, from {source.kind}; left out: {others}")
    if old and not force:
        _refuse_moved(name, old, new)
    for line in changes(old.files if old else {}, files):
        print(f"  {line}")
    _check(name, model, source, new)
    if old == new:
        print(f"{layout.pin(name)} is up to date")
    else:
        pins.write(name, new)
        print(f"wrote {layout.pin(name)}")


def _taken(source: Source) -> tuple[dict[str, PinnedFile], list[str]]:
    """The files of a source that a checkpoint needs, and the names of the others.

    Raises:
        UserError: there are no weights or no configuration among them, or one has no digest.
    """
    listed: dict[str, PinnedFile | None] = sources.module(source).listing(source)
    names = sorted(name for name in listed if "/" not in name and any(fnmatchcase(name, kind) for kind in TAKEN))
    missing = [name for name in NEEDED if name not in names]
    if missing:
        raise UserError(f"no {' and no '.join(missing)} among {', '.join(sorted(listed)) or 'no files'}")
    files = {name: file for name in names if (file := listed[name])}
    unsure = [name for name in names if name not in files]
    if unsure:
        raise UserError(
            f"no size or no sha256 is listed for {', '.join(unsure)}, so a download could not be checked; get the "
            "files in a way you trust and put {kind: folder, path: ...} first among the model's sources"
        )
    return files, sorted(listed.keys() - files.keys())


def _check(name: str, model: Model, source: Source, new: Pin) -> None:
    """Load the files as every stage will.

    The download is the one of `fetch`, which finds it in the cache then.

    Raises:
        UserError: they are not a checkpoint of the family, or not the listed bytes.
    """
    print(f"{name}: gets the files from {source.kind} and loads them")
    layout.CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="pin-", dir=layout.CACHE) as place:
        folder = Path(place)
        sources.module(source).fetch(source, new.files, folder)
        try:
            for file, pinned in new.files.items():
                weights.refuse_stand_in(folder / file)
                pinned.check(folder / file, str(folder / file))
            importlib.import_module(f"stages.models.{model.family}").load(folder)
        except UserError as e:
            said = str(e).replace(f"{folder}/", "").replace(place, "the checkpoint")
            raise UserError(f"{name}: {said}\n  from {_origin(source)}; nothing was pinned") from e


def _origin(source: Source) -> str:
    facts = source.model_dump(mode="json", exclude={"kind", "archive"})
    return f"{source.kind} ({', '.join(map(str, facts.values()))})"


def _refuse_moved(name: str, old: Pin, new: Pin) -> None:
    """A revision that was pinned does not change: a tag was moved, or the hub is not what it was."""
    changed = [file for file in old.files.keys() & new.files.keys() if old.files[file] != new.files[file]]
    if changed and old.revision and (old.hub_id, old.revision) == (new.hub_id, new.revision):
        lines = changes({file: old.files[file] for file in changed}, {file: new.files[file] for file in changed})
        kept = f"{layout.pin(name)} is as it was; find out why they differ, `--force` accepts them"
        first = f"{name}: other bytes than were pinned for the same revision {old.revision}"
        raise UserError("\n  ".join([first, *lines, kept]))


def changes(old: Mapping[str, PinnedFile], new: Mapping[str, PinnedFile]) -> list[str]:
    """One line for each file that came (+), went (-) or has other bytes (!)."""
    lines = []
    for name in sorted(old.keys() | new.keys()):
        was, now = (
            f"{file.size:,} bytes, sha256 {file.sha256}" if (file := side.get(name)) else "" for side in (old, new)
        )
        if was != now:
            mark = "!" if was and now else "+" if now else "-"
            lines.append(f"{mark} {name}: {', was '.join(filter(None, [now, was]))}")
    return lines
