"""`python -m stages add MODEL`: put a model and its builds into params.yaml, comments and all kept."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence

from stages.commands import catalogue, own, prunable, yaml_lines
from stages.commands.own import Addition
from stages.core import layout, params, pins
from stages.core.errors import UserError, did_you_mean
from stages.core.files import write_text
from stages.core.params import PARAMS, Model, Params, RatioOf, Target
from stages.core.pins import Pin


def add(
    name: str,
    targets: Sequence[str] | None = None,
    *,
    origin: str | None = None,
    dataset: str | None = None,
    license_: str | None = None,
    dry_run: bool = False,
) -> None:
    """Add what is missing of a model and its builds to params.yaml, and print the lines.

    Lines are only inserted, each at the end of its table, and a data set or a licence that was there before is
    replaced by the one given; nothing is written unless the result is valid.

    targets: those that other models of the family have, unless given. origin: a folder or OWNER/MODEL@REVISION with a
    checkpoint that neither params.yaml nor the catalogue has; its lock file is written too.

    Raises:
        UserError: the model, a target or the data set is unknown, a table to add to is not there, or the result would
            not be valid, such as a gate without limits for the family.
    """
    present = params.load()
    if dataset is not None and dataset not in present.datasets:
        raise UserError(f"params.yaml has no data set {dataset!r}; {did_you_mean(dataset, present.datasets)}")
    found = own.find(name, origin, present, dataset=dataset, license_=license_) if origin else _known(name, present)
    targets = _checked(name, found.model, targets, present)
    old = PARAMS.read_text(encoding="utf-8")
    new = _inserted(old, name, found, targets, present)
    new = _replaced(new, name, {"dataset": dataset, "license": license_})
    changed = difflib.unified_diff(old.splitlines(), new.splitlines(), str(PARAMS), str(PARAMS), n=1, lineterm="")
    print("\n".join(changed) or f"{PARAMS} has {name} on {', '.join(targets)} already")
    if not dry_run:
        _write(name, new if new != old else None, found.pin)
    if found.pin is None:
        print(f"next: `python -m stages pin {name}`, because fetch demands {layout.pin(name)}")


def _known(name: str, present: Params) -> Addition:
    """Look up a model of params.yaml or the catalogue."""
    model = catalogue.find(name, present)
    known = name in present.models
    lines = [] if known else yaml_lines.lines_of(catalogue.CATALOGUE.read_text(encoding="utf-8"), (), name)
    return Addition(model, lines, pins.read(name))


def _checked(name: str, model: Model, targets: Sequence[str] | None, present: Params) -> Sequence[str]:
    """Check the targets; where none are given, take the model's own, else its relatives'.

    Raises:
        UserError: params.yaml has no such target, or nothing to choose by.
    """
    for target in targets or ():
        if target not in present.targets:
            raise UserError(f"params.yaml has no target {target!r}; {did_you_mean(target, present.targets)}")
    if not targets:
        relatives = [key for key, other in present.models.items() if other.family == model.family]
        built = {build.target for build in present.builds.values() if build.model in relatives}
        own_ = {build.target for build in present.builds.values() if build.model == name}
        targets = [target for target in present.targets if target in (own_ or built)]
        if not targets:
            raise UserError(f"{name}: no model of the family {model.family!r} has builds; name targets with --targets")
        print(f"{name}: targets {', '.join(targets)}, as {'before' if own_ else 'other models of its family have'}")
    return targets


def _inserted(text: str, name: str, found: Addition, targets: Sequence[str], present: Params) -> str:
    """Insert what is missing.

    Raises:
        UserError: a table to add to is not there, or the result would not be valid.
    """
    new = text
    for path, key, lines in _entries(name, found, targets, present, text):
        new = yaml_lines.insert(new, path, key, lines)
    _parsed(new, name)
    return new


def _parsed(text: str, name: str) -> Params:
    try:
        return params.parse(text, f"{PARAMS} with {name} added")
    except UserError as e:
        raise UserError(f"{e}\n  nothing was written") from e


def _replaced(text: str, name: str, given: Mapping[str, str | None]) -> str:
    """Set what is given of a model at every place of a valid params.yaml that has it."""
    new, p = text, _parsed(text, name)
    graphs = [("quantize", "graphs", key) for key, line in p.quantize.graphs.items() if line.model == name]
    pruned = [("prune", name)] if name in p.prune else []
    places: dict[str, list[tuple[str, ...]]] = {
        "dataset": [("models", name), *pruned, *graphs],
        "license": [("models", name)],
    }
    for field, value in given.items():
        for place in places[field] if value is not None else []:
            new = yaml_lines.set_value(new, (*place, field), str(value))
    _parsed(new, name)
    return new


def _write(name: str, text: str | None, pin: Pin | None) -> None:
    """Write params.yaml and the lock file, or, should the second fail, neither."""
    before = pins.read(name)
    if pin is not None:
        pins.write(name, pin)
    try:
        if text is not None:
            write_text(PARAMS, text)
    except BaseException:
        if pin is not None:
            layout.pin(name).unlink() if before is None else pins.write(name, before)
        raise
    if pin is not None and pin != before:
        print(f"wrote {layout.pin(name)}")


Entry = tuple[tuple[str, ...], str, Sequence[str]]  # a table of params.yaml, a key of it, and the key's lines


def _entries(name: str, found: Addition, targets: Sequence[str], present: Params, text: str) -> Iterator[Entry]:
    """Every entry that the builds need, there or not; the dense variant always, because it is the baseline."""
    yield ("models",), name, found.lines
    variants = ["dense", *(present.targets[target].variant for target in targets)]
    for variant in dict.fromkeys(variants):
        yield ("variants",), *_line(f"{name}-{variant}", model=name, variant=variant)
    if "pruned" in variants and name not in present.prune:
        yield ("prune",), name, _prune_like_a_relative(name, found, present, text)
    for key in targets:
        target = present.targets[key]
        graph = {"model": name, "variant": target.variant}
        if target.graph in present.quantize.recipes:
            applied = {"graph": _applied_to(target, present), "recipe": target.graph, "dataset": found.model.dataset}
            yield ("quantize", "graphs"), *_line(f"{name}-{target.variant}-{target.graph}", **graph, **applied)
        if target.runtime != "onnxruntime":
            yield ("engine", "builds"), *_line(f"{name}-{key}", **graph, graph=target.graph, target=key)
        yield ("builds",), *_line(f"{name}-{key}", model=name, target=key, artifact=params.artifact(name, key, target))


def _applied_to(target: Target, present: Params) -> str:
    """What the target's recipe is applied to: as for other models, else what every runtime takes."""
    lines = present.quantize.graphs.values()
    return next((line.graph for line in lines if line.recipe == target.graph), "simplify")


def _line(key: str, **fields: str) -> tuple[str, list[str]]:
    return key, [f"{key}: {{{', '.join(f'{field}: {value}' for field, value in fields.items())}}}"]


def _prune_like_a_relative(name: str, found: Addition, present: Params, text: str) -> list[str]:
    """The `prune` section of a model of the same family, on this model's data set."""
    model = found.model
    relative = next((key for key in present.prune if present.models[key].family == model.family), None)
    if relative is None:
        raise UserError(
            f"{name}: no model of the family {model.family!r} has a section in `prune` to start from; "
            f"write prune.{name} in params.yaml, then add the pruned targets"
        )
    first, *others = yaml_lines.lines_of(text, ("prune",), relative)
    renamed = [first.replace(relative, name, 1), *others]
    of, why = prunable.pick(name, model, present.prune[relative], found.pin)
    print(why)
    on_own_data = re.sub(r"\bdataset: \w+", f"dataset: {model.dataset}", "\n".join(renamed))
    return (on_own_data if of == present.prune[relative].ratio_of else _with_ratio_of(of, on_own_data)).splitlines()


def _with_ratio_of(of: RatioOf, section: str) -> str:
    """Return a section of `prune` with another `ratio_of`, or with one, before the ratio and its comment."""
    if re.search(r"\bratio_of:", section):
        return re.sub(r"\bratio_of: \w+", f"ratio_of: {of}", section)
    return re.sub(
        r"(\n *)?\bratio:", lambda found: f"{found[1] or ''}ratio_of: {of}{found[1] or ', '}ratio:", section, count=1
    )
