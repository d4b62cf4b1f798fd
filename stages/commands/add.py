"""`python -m stages add MODEL --targets a,b`: put a model and its builds into params.yaml, comments and all kept."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence

from stages.commands import catalogue, prunable, yaml_lines
from stages.core import layout, params, pins
from stages.core.errors import UserError, did_you_mean
from stages.core.files import write_text
from stages.core.params import PARAMS, Model, Params, RatioOf, Target


def add(name: str, targets: Sequence[str], *, dry_run: bool) -> None:
    """Add what is missing of a model and its builds to params.yaml, and print the lines.

    Lines are only inserted, each at the end of its table; nothing is written unless the result is valid.

    Raises:
        UserError: the model or a target is unknown, a table to add to is not there, or the result would not
            be valid, such as a gate without limits for the family.
    """
    present = params.load()
    model = catalogue.find(name, present)
    for target in targets:
        if target not in present.targets:
            raise UserError(f"params.yaml has no target {target!r}; {did_you_mean(target, present.targets)}")
    old = new = PARAMS.read_text(encoding="utf-8")
    for path, key, lines in _entries(name, model, targets, present, old):
        new = yaml_lines.insert(new, path, key, lines)
    try:
        params.parse(new, f"{PARAMS} with {name} added")
    except UserError as e:
        raise UserError(f"{e}\n  nothing was written") from e
    changed = difflib.unified_diff(old.splitlines(), new.splitlines(), str(PARAMS), str(PARAMS), n=1, lineterm="")
    print("\n".join(changed) or f"{PARAMS} has {name} on {', '.join(targets)} already")
    if not dry_run and new != old:
        write_text(PARAMS, new)
    if pins.read(name) is None:
        print(f"next: `python -m stages pin {name}`, because fetch demands {layout.pin(name)}")


Entry = tuple[tuple[str, ...], str, list[str]]  # a table of params.yaml, a key of it, and the key's lines


def _entries(name: str, model: Model, targets: Sequence[str], present: Params, text: str) -> Iterator[Entry]:
    """Every entry that the builds need, there or not; the dense variant always, because it is the baseline."""
    if name not in present.models:
        yield ("models",), name, yaml_lines.lines_of(catalogue.CATALOGUE.read_text(encoding="utf-8"), (), name)
    variants = ["dense", *(present.targets[target].variant for target in targets)]
    for variant in dict.fromkeys(variants):
        yield ("variants",), *_line(f"{name}-{variant}", model=name, variant=variant)
    if "pruned" in variants and name not in present.prune:
        yield ("prune",), name, _prune_like_a_relative(name, model, present, text)
    for key in targets:
        target = present.targets[key]
        graph = {"model": name, "variant": target.variant}
        if target.graph in present.quantize.recipes:
            applied = {"graph": _applied_to(target, present), "recipe": target.graph, "dataset": model.dataset}
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


def _prune_like_a_relative(name: str, model: Model, present: Params, text: str) -> list[str]:
    """The `prune` section of a model of the same family, on this model's data set."""
    relative = next((key for key in present.prune if present.models[key].family == model.family), None)
    if relative is None:
        raise UserError(
            f"{name}: no model of the family {model.family!r} has a section in `prune` to start from; "
            f"write prune.{name} in params.yaml, then add the pruned targets"
        )
    first, *others = yaml_lines.lines_of(text, ("prune",), relative)
    renamed = [first.replace(relative, name, 1), *others]
    of, why = prunable.pick(name, model, present.prune[relative])
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
