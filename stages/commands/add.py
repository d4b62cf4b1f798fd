"""Put a model and its builds, or more targets of a model, into params.yaml, comments and all kept."""

from __future__ import annotations

import difflib
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence

from stages.commands import catalogue, own, prunable, yaml_lines
from stages.commands.own import Addition
from stages.core import layout, params, pins, plan
from stages.core.errors import UserError, did_you_mean
from stages.core.files import write_text
from stages.core.params import PARAMS, Checkpoint, Params, yaml_text
from stages.core.pins import Pin

EXAMPLE = "kiln add my_asr --from my/checkpoint --dataset my_audio"


def add_arguments(parser: ArgumentParser) -> None:
    """Add the model's name, where its checkpoint is, and what differs from other models of its family."""
    parser.add_argument(
        "model", metavar="NAME", help="of params.yaml or stages/catalogue.yaml, or a new one with --from"
    )
    parser.add_argument("--from", dest="origin", metavar="DIR", help="a FunASR checkpoint, or OWNER/MODEL@REVISION")
    parser.add_argument(
        "--targets", metavar="A,B", help="of params.yaml; those of other models of the family by default"
    )
    parser.add_argument("--dataset", metavar="D", help="of params.yaml; set at every place that has the model")
    parser.add_argument("--license", metavar="L", help="where the checkpoint's README.md does not say it")
    parser.add_argument("--dry-run", action="store_true", help="print the lines and write nothing")


def run(arguments: Namespace) -> None:
    """Add what the command line names."""
    targets = arguments.targets.split(",") if arguments.targets else None
    chosen = {"dataset": arguments.dataset, "license_": arguments.license}
    add(arguments.model, targets, origin=arguments.origin, dry_run=arguments.dry_run, **chosen)


def add(
    name: str,
    targets: Sequence[str] | None = None,
    *,
    origin: str | None = None,
    dataset: str | None = None,
    license_: str | None = None,
    dry_run: bool = False,
) -> None:
    """Add a model, or targets to one that is there, to params.yaml, and print the lines.

    A data set or a licence that was there before is replaced by the one given; nothing is written unless the result is
    valid.

    targets: those that other models of the family have, unless given. origin: a folder or OWNER/MODEL@REVISION with a
    checkpoint that neither params.yaml nor the catalogue has; its lock file is written too.

    Raises:
        UserError: the model, a target or the data set is unknown, or the result would not be valid, such as a gate
            without limits for the family.
    """
    present = params.load()
    if dataset is not None and dataset not in present.datasets:
        raise UserError(f"params.yaml has no data set {dataset!r}; {did_you_mean(dataset, present.datasets)}")
    found = own.find(name, origin, present, dataset=dataset, license_=license_) if origin else _known(name, present)
    targets = _check_targets(name, found.model, targets, present)
    old = yaml_text.read(PARAMS)
    new = _insert_model(old, name, found, targets, present)
    new = _set_fields(new, name, {"dataset": dataset, "license": license_})
    changed = difflib.unified_diff(old.splitlines(), new.splitlines(), str(PARAMS), str(PARAMS), n=1, lineterm="")
    print("\n".join(changed) or f"{PARAMS} has {name} on {', '.join(targets)} already")
    if not dry_run:
        _write(name, new if new != old else None, found.pin)
    if found.pin is None:
        print(f"next: `kiln pin {name}`, because fetch demands {layout.pin(name)}")


def _known(name: str, present: Params) -> Addition:
    """Look up a model of params.yaml or the catalogue."""
    model = catalogue.find(name, present)
    known = name in present.models
    lines = [] if known else yaml_lines.lines_of(catalogue.CATALOGUE.read_text(encoding="utf-8"), (), name)
    return Addition(model, lines, pins.read(name))


def _check_targets(name: str, model: Checkpoint, targets: Sequence[str] | None, present: Params) -> Sequence[str]:
    """Check the targets; where none are named, take the model's own, else those of other models of its family.

    Raises:
        UserError: params.yaml has no such target, or nothing to choose by.
    """
    for target in targets or ():
        if target not in present.targets:
            raise UserError(f"params.yaml has no target {target!r}; {did_you_mean(target, present.targets)}")
    if not targets:
        own_ = present.models[name].targets if name in present.models else []
        relatives = [other for other in present.models.values() if other.family == model.family]
        built = {target for other in relatives for target in other.targets}
        targets = [target for target in present.targets if target in (own_ or built)]
        if not targets:
            raise UserError(f"{name}: no model of the family {model.family!r} has targets; name them with --targets")
        print(f"{name}: targets {', '.join(targets)}, as {'before' if own_ else 'other models of its family have'}")
    return targets


def _insert_model(text: str, name: str, found: Addition, targets: Sequence[str], present: Params) -> str:
    """Insert the model, these targets among its own, and what of it can be pruned where its family's settings differ.

    Raises:
        UserError: the result would not be valid.
    """
    model = present.models.get(name)
    own_ = model.targets if model else []
    wanted = [*own_, *(target for target in targets if target not in own_)]
    new = yaml_lines.insert(text, ("models",), name, [*found.lines, f"  {_line(wanted)}"])
    if model and wanted != own_:
        put = yaml_lines.replace if own_ else yaml_lines.insert
        new = put(new, ("models", name), "targets", [_line(wanted)])
    p = _parse(new, name)
    pruned = {target for target in wanted if p.targets[target].variant == "pruned"}
    if not pruned or pruned & {*own_} or p.models[name].prune.model_fields_set:
        return new
    settings = p.prune_settings(name)
    share, why = prunable.pick(name, found.model, settings, found.pin)
    print(why)
    own_settings = [f"prune: {{ratio_of: {share}}}"]
    return new if share == settings.ratio_of else yaml_lines.insert(new, ("models", name), "prune", own_settings)


def _line(targets: Sequence[str]) -> str:
    return f"targets: [{', '.join(targets)}]"


def _parse(text: str, name: str) -> Params:
    try:
        return params.parse(text, f"{PARAMS} with {name} added")
    except UserError as e:
        raise UserError(f"{e}\n  nothing was written") from e


def _set_fields(text: str, name: str, fields: Mapping[str, str | None]) -> str:
    """Set those fields of a model that have a value."""
    new = text
    for field, value in fields.items():
        if value is not None:
            new = yaml_lines.set_value(new, ("models", name, field), str(value))
    _parse(new, name)
    return new


def _write(name: str, text: str | None, pin: Pin | None) -> None:
    """Write params.yaml and the lock file, or, should the second fail, neither."""
    before = pins.read(name)
    if pin is not None:
        pins.write(name, pin)
    try:
        if text is not None:
            write_text(PARAMS, text)
            plan.write(_parse(text, name))
    except BaseException:
        if pin is not None:
            layout.pin(name).unlink() if before is None else pins.write(name, before)
        raise
    if pin is not None and pin != before:
        print(f"wrote {layout.pin(name)}")
