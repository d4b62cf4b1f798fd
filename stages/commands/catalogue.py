"""The models that `pin` and `add` know by name: those of params.yaml, and those of the catalogue."""

from __future__ import annotations

from pathlib import Path

from pydantic import TypeAdapter
from ruamel.yaml import YAML

from stages.core.errors import UserError, did_you_mean
from stages.core.params import Checkpoint, Params
from stages.core.params.section import Key

CATALOGUE = Path(__file__).parents[1] / "catalogue.yaml"


def models() -> dict[str, Checkpoint]:
    """Return every model of the catalogue by its short name."""
    raw = YAML(typ="safe").load(CATALOGUE.read_text(encoding="utf-8"))
    return TypeAdapter(dict[Key, Checkpoint]).validate_python(raw)


def find(name: str, params: Params) -> Checkpoint:
    """Find a model in params.yaml or, where that has none of the name, in the catalogue.

    Raises:
        UserError: neither has it.
    """
    known: dict[str, Checkpoint] = {**models(), **params.models}
    if name not in known:
        raise UserError(f"neither params.yaml nor {CATALOGUE.name} has a model {name!r}; {did_you_mean(name, known)}")
    return known[name]
