"""What `kiln add NAME --from ...` finds in a checkpoint of the user's: its family, licence and files."""

from __future__ import annotations

import io
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from ruamel.yaml import YAML

from stages import models, sources
from stages.commands import catalogue, pin, yaml_lines
from stages.core.errors import UserError, did_you_mean
from stages.core.params import Checkpoint, Params
from stages.core.params.origins import FolderSource, ModelScopeSource, Source
from stages.core.pins import Pin, PinnedFile
from stages.models.shared import weights

CARD, CONFIG = "README.md", "config.yaml"
CARD_BYTES, LICENSE_CHARACTERS = 2**16, 200  # of a card, what is read at most
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Addition:
    """A model to add, its lines for `models` of params.yaml, and its lock file, if it has one."""

    model: Checkpoint
    lines: list[str]
    pin: Pin | None


def find(name: str, origin: str, present: Params, *, dataset: str | None, license_: str | None) -> Addition:
    """Examine the checkpoint at `origin`, a folder or OWNER/MODEL@REVISION, and print what its family gives.

    Raises:
        UserError: the name cannot be one or is another model's, there is no checkpoint, or no family takes it.
    """
    yaml_lines.check_name(name, "a model")
    source = parse_source(origin)
    model = _known(name, source, present)
    with _small_files(source, origin) as folder:
        found, family = _family(folder / CONFIG)
        model = model or Checkpoint(
            family=family,
            dataset=dataset or _usual_dataset(family, present),
            license=license_ or _license(folder / CARD) or UNKNOWN,
            sources=[source],
        )
        pinned = pin.make_pin(name, model, force=False)
        print(f"{name}: {found} of the family {family}")
        for line in _describe_family(family, folder):
            print(f"  {line}")
    if model.license == UNKNOWN:
        print(f"  license: unknown, as no {CARD} says it; say it with --license before you ship")
    return Addition(model, _lines(name, model), pinned)


def parse_source(origin: str) -> Source:
    """Parse where a checkpoint is: a folder, or a model of the hub.

    Raises:
        UserError: it is neither, or the revision is one that moves.
    """
    if Path(origin).is_dir():
        return FolderSource(kind="folder", path=Path(origin))
    hub_id, at, revision = origin.partition("@")
    if not at:
        own = catalogue.find_own_name(origin)
        hint = f"; {catalogue.CATALOGUE.name} has it as {own}" if own else ""
        raise UserError(f"--from {origin}: not a folder; wanted one, or OWNER/MODEL@REVISION of the hub{hint}")
    try:
        return ModelScopeSource(kind="modelscope", hub_id=hub_id, revision=revision)
    except ValidationError as e:
        first = e.errors()[0]
        said = first["msg"].removeprefix("Value error, ")
        raise UserError(f"--from {origin}: {first['loc'][0]}: {said}; wanted a folder or OWNER/MODEL@REVISION") from e


def _known(name: str, source: Source, present: Params) -> Checkpoint | None:
    """Look up a model that is there already.

    Raises:
        UserError: it has other sources.
    """
    known = {**catalogue.models(), **present.models}.get(name)
    if known is not None and known.sources != [source]:
        place = "params.yaml" if name in present.models else catalogue.CATALOGUE.name
        raise UserError(f"{place} has a model {name!r} with other sources already; choose another name")
    return known


@contextmanager
def _small_files(source: Source, origin: str) -> Iterator[Path]:
    """Copy all that FunASR reads of a checkpoint but its weights, and the card, into a folder that is then removed.

    Raises:
        UserError: there are no weights or no configuration, or what the block raises, with `origin` for the folder.
    """
    module = sources.module(source)
    listed: dict[str, PinnedFile | None] = module.listing(source, _is_small)
    try:
        pin.check_whole(listed)
        pin.require_digests(source, listed, [CONFIG])
    except UserError as e:
        raise UserError(f"{origin}: {e}") from e
    with tempfile.TemporaryDirectory() as folder:
        try:
            module.fetch(source, {name: file for name, file in listed.items() if file}, Path(folder))
            yield Path(folder)
        except UserError as e:
            raise UserError(str(e).replace(folder, origin.rstrip("/"))) from e


def _is_small(name: str) -> bool:
    return name == CARD or (pin.is_taken(name) and name not in weights.NAMES)


def _family(config: Path) -> tuple[str, str]:
    """Read FunASR's name of the model off config.yaml, and find the family that takes it.

    Raises:
        UserError: there is none, or no family takes it.
    """
    from stages.models.shared import yaml_config

    found = yaml_config.read(config).get("model")
    models.refuse(found, config)
    family = models.find(found) if isinstance(found, str) else None
    if family is None:
        takes = {name: tuple(models.load(name).SCHEMAS) for name in models.FAMILIES}
        known = "; ".join(f"{key} takes {', '.join(names)}" for key, names in takes.items())
        closest = f" ({did_you_mean(found, sum(takes.values(), ()))})" if isinstance(found, str) else ""
        raise UserError(f"{config}: found model {found}, which no family takes{closest}; {known}")
    return str(found), family


def _usual_dataset(family: str, present: Params) -> str:
    """Choose the data set of another model of the family.

    Raises:
        UserError: no model of params.yaml or the catalogue is of the family.
    """
    known = {**present.models, **catalogue.models()}.values()
    usual = next((model.dataset for model in known if model.family == family), None)
    if usual is None:
        raise UserError(f"no model of the family {family} has a data set to start from; name one with --dataset")
    return usual


def _license(card: Path) -> str | None:
    """Read the licence in the front matter of a model card, as text, since anyone may have written it; else None."""
    text = card.read_bytes()[:CARD_BYTES].decode("utf-8", "replace").replace("\r\n", "\n") if card.is_file() else ""
    front = re.match(r"\ufeff?---[ \t]*\n(.*?\n)---[ \t]*(\n|$)", text, re.DOTALL)
    said = re.search(r"^license:(.*\n(?:[ \t]*- .*\n)*)", front[1], re.MULTILINE) if front else None
    parts = [part.partition(" #")[0].strip(" \t-[]\"'") for part in re.split("[,\n]", said[1])] if said else []
    return ", ".join(filter(None, parts))[:LICENSE_CHARACTERS] or None


def _describe_family(family: str, folder: Path) -> Iterator[str]:
    """Describe what a family gives for the checkpoint whose small files are in `folder`, line by line.

    Raises:
        UserError: its files are not as the family wants them.
    """
    from stages.models.shared import checkpoint

    module = models.load(family)
    model = checkpoint.weightless(module.build, module.read_config(folder))
    yield f"parameters: {sum(tensor.numel() for tensor in model.parameters()):,}"
    yield f"graphs: {', '.join(module.graph_set(model).graphs)}"
    if family in models.PRUNABLE:
        widths = models.PRUNABLE.load(family).widths(model)
        yield f"can be pruned: {', '.join(f'{key} {width}' for key, width in widths.items())}"
    yield f"metrics, {' and '.join(module.MODES)}: {', '.join(module.METRICS)}; headline {module.HEADLINE}"


def _lines(name: str, model: Checkpoint) -> list[str]:
    """Write the model as lines of `models` in params.yaml."""
    yaml, out = YAML(), io.StringIO()
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width = 10**6  # a path stays on its line
    yaml.dump({name: model.model_dump(mode="json")}, out)
    return out.getvalue().splitlines()
