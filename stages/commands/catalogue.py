"""The models that `pin` and `add` know by name: those of params.yaml, and those of the catalogue."""

from __future__ import annotations

from pathlib import Path

from pydantic import TypeAdapter
from ruamel.yaml import YAML

from stages.core.errors import UserError, did_you_mean
from stages.core.packages import import_bare
from stages.core.params import Checkpoint, Params
from stages.core.params.origins import ModelScopeSource
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
        own = find_own_name(name)
        hint = f"the catalogue has it as {own!r}" if own else did_you_mean(name, known)
        raise UserError(f"neither params.yaml nor {CATALOGUE.name} has a model {name!r}; {hint}")
    return known[name]


def find_own_name(name: str) -> str | None:
    """Find what the catalogue calls a model that somebody else calls `name`, or return None.

    name: FunASR's, such as `paraformer-zh` or `cam++`, or that of a hub's repository, with or without its owner.
    """
    import_bare("funasr")
    from funasr.download.name_maps_from_hub import name_maps_ms

    repository = name.partition("@")[0].rpartition("/")[2]
    wanted = name_maps_ms.get(repository, repository).rpartition("/")[2].casefold()
    sources = ((own, source) for own, model in models().items() for source in model.sources)
    hub = ((own, source.hub_id) for own, source in sources if isinstance(source, ModelScopeSource))
    return next((own for own, hub_id in hub if hub_id.rpartition("/")[2].casefold() == wanted), None)
