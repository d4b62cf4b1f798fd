"""Write down the size and digest of every file that a model or a data set is made of, in pins/NAME.json.

The files of a model are loaded first: a digest makes whatever was behind it right for good, a web page too.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase

from stages import models, sources
from stages.commands import catalogue
from stages.core import layout, params, pins
from stages.core.errors import UserError, first_of
from stages.core.files import scratch_folder
from stages.core.params import Checkpoint
from stages.core.params.origins import FolderSource, ModelScopeDataset, Source
from stages.core.pins import Pin, Pinned, PinnedFile
from stages.corpora import hub
from stages.models.shared import weights

# What FunASR reads of a checkpoint folder: weights, configuration, CMVN, tokens and word lists. A hub
# repository also has a card, figures, example audio and at times code, which nothing here needs.
TAKEN = (*weights.NAMES, "config.yaml", "configuration.json", "am.mvn", "tokens.*", "*.bpe.model", "seg_dict", "jieba*")
CONFIG = "config.yaml"
EPOCHS = f"{weights.NAMES[0]}.*"  # FunASR's trainer: of each epoch, the best, an average
EXAMPLE = "kiln pin paraformer_large"


def add_arguments(parser: ArgumentParser) -> None:
    """Add the names to pin, and whether a moved revision is accepted."""
    parser.add_argument("names", nargs="+", metavar="NAME", help="of params.yaml or stages/catalogue.yaml")
    parser.add_argument("--force", action="store_true", help="accept other bytes for a revision that was pinned before")


def run(arguments: Namespace) -> None:
    """Pin each of the named models and data sets."""
    for name in arguments.names:
        pin(name, force=arguments.force)


def pin(name: str, *, force: bool) -> None:
    """Write pins/NAME.json and print what changed.

    Raises:
        UserError: as `make_pin` does.
    """
    new = make_pin(name, _find(name), force=force)
    if pins.read(name) == new:
        print(f"{layout.pin(name)} is up to date")
    else:
        pins.write(name, new)
        print(f"wrote {layout.pin(name)}")


def _find(name: str) -> Pinned:
    """Find a data set of the hub by its name in params.yaml, or a model."""
    present = params.load()
    dataset = present.datasets.get(name)
    return dataset if isinstance(dataset, ModelScopeDataset) else catalogue.find(name, present)


def make_pin(name: str, entry: Pinned, *, force: bool) -> Pin:
    """Ask the first source that answers for its files, print what changed, and return what pins/NAME.json should say.

    Raises:
        UserError: no source answered with what a checkpoint or a data set needs, a file of a revision that was pinned
            before has other bytes now and `force` is not set, or a model's files are no checkpoint of its family.
    """
    old, on_hub = pins.read(name), pins.hub_source(entry)
    places, taken = (
        ([entry], hub.list_files) if isinstance(entry, ModelScopeDataset) else (entry.sources, list_checkpoint)
    )
    source, (files, left_out) = sources.first_good(name, places, taken, "a list of files to pin")
    new = Pin(hub_id=on_hub and on_hub.hub_id, revision=on_hub and on_hub.revision, files=files)
    size, others = sum(file.size for file in files.values()), first_of(left_out)
    print(f"{name}: {len(files)} files, {size:,} bytes, from {source.kind}; left out: {others}")
    if old and not force:
        _refuse_moved(name, old, new)
    for line in changes(old.files if old else {}, files):
        print(f"  {line}")
    if isinstance(entry, Checkpoint):
        _check(name, entry, source, new)
    return new


def is_taken(name: str) -> bool:
    """Tell whether FunASR reads a file of that path in a checkpoint's folder."""
    return "/" not in name and any(fnmatchcase(name, kind) for kind in TAKEN)


def list_checkpoint(source: Source) -> tuple[dict[str, PinnedFile], list[str]]:
    """List the files of a source that a checkpoint needs, and the names of the others.

    Raises:
        UserError: there are no weights or no configuration among them, or one has no digest.
    """
    found: dict[str, PinnedFile | None] = sources.module(source).listing(source, is_taken)
    check_whole(found)
    files = require_digests(source, found, sorted(filter(is_taken, found)))
    return files, sorted(found.keys() - files.keys())


def require_digests(
    source: Source, found: Mapping[str, PinnedFile | None], names: Sequence[str]
) -> dict[str, PinnedFile]:
    """Pick the named files of a checkpoint's listing, each with size and digest.

    Raises:
        UserError: one is empty, or a hub lists no digest of it.
    """
    if isinstance(source, FolderSource) and (empty := [name for name in names if found.get(name) is None]):
        raise UserError(f"{source.path / empty[0]} is empty")
    return sources.require_digests(found, names, "put {kind: folder, path: ...} first among the model's sources")


def _check(name: str, model: Checkpoint, source: Source, new: Pin) -> None:
    """Load the files as every stage will.

    The download is the one of `fetch`, which finds it in the cache then.

    Raises:
        UserError: they are not a checkpoint of the family, or not the listed bytes.
    """
    print(f"{name}: gets the files from {source.kind} and loads them")
    with scratch_folder(layout.CACHE / f"pin-{name}") as folder:
        sources.module(source).fetch(source, new.files, folder)
        try:
            for file, pinned in new.files.items():
                weights.refuse_stand_in(folder / file)
                pinned.check(folder / file, str(folder / file))
            models.load(model.family).load(folder)
        except UserError as e:
            said = str(e).replace(f"{folder}/", "").replace(str(folder), "the checkpoint")
            raise UserError(f"{name}: {said}\n  from {_origin(source)}; nothing was pinned") from e


def _origin(source: Source) -> str:
    facts = source.model_dump(mode="json", exclude={"kind", "archive"})
    return f"{source.kind} ({', '.join(map(str, facts.values()))})"


def check_whole(found: Collection[str]) -> None:
    """Raise UserError if there are no weights or no configuration among the files of a checkpoint."""
    usual = weights.NAMES[0]
    missing = [*([] if any(name in found for name in weights.NAMES) else [usual]), *({CONFIG} - set(found))]
    if missing:
        epochs = [name for name in sorted(found) if fnmatchcase(name, EPOCHS)] if usual in missing else []
        advice = f"; copy the one to build, such as {epochs[0]}, to {usual}" if epochs else ""
        raise UserError(f"no {' and no '.join(missing)} among {first_of(sorted(found))}{advice}")


def _refuse_moved(name: str, old: Pin, new: Pin) -> None:
    """Raise UserError if a file of a revision that was pinned before has other bytes now, as after a moved tag."""
    changed = [file for file in old.files.keys() & new.files.keys() if old.files[file] != new.files[file]]
    if changed and old.revision and (old.hub_id, old.revision) == (new.hub_id, new.revision):
        lines = changes({file: old.files[file] for file in changed}, {file: new.files[file] for file in changed})
        kept = f"{layout.pin(name)} is as it was; find out why they differ, `--force` accepts them"
        first = f"{name}: other bytes than were pinned for the same revision {old.revision}"
        raise UserError("\n  ".join([first, *lines, kept]))


def changes(old: Mapping[str, PinnedFile], new: Mapping[str, PinnedFile]) -> list[str]:
    """List each file that came (+), went (-) or has other bytes (!), one a line."""
    lines = []
    for name in sorted(old.keys() | new.keys()):
        was, now = (
            f"{file.size:,} bytes, sha256 {file.sha256}" if (file := side.get(name)) else "" for side in (old, new)
        )
        if was != now:
            mark = "!" if was and now else "+" if now else "-"
            lines.append(f"{mark} {name}: {', was '.join(filter(None, [now, was]))}")
    return lines
