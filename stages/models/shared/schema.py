"""Typed sections of config.yaml: what is wrong with one is a single line with file, key, found and wanted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import ErrorDetails

from stages import models
from stages.core.errors import UserError, did_you_mean

# The largest of FunASR's checkpoints are 2,048 wide, 50 layers deep and know 471,067 tokens. A number far beyond is a
# mistake, and the network of it would be built for minutes, or not fit into memory.
Width = Annotated[int, Field(ge=1, le=65_536)]
Blocks = Annotated[int, Field(ge=1, le=500)]
Taps = Annotated[int, Field(ge=1, le=1001)]
Vocabulary = Annotated[int, Field(ge=1, le=10_000_000)]
Index = Annotated[int, Field(ge=-1, le=10_000_000)]  # of a token; -1 is FunASR's word for none
Small = Annotated[int, Field(ge=0, le=1000)]
Milliseconds = Annotated[int, Field(ge=0, le=24 * 3_600_000)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, le=1e6)]
Signed = Annotated[float, Field(ge=-1e6, le=1e6)]
Exactly1 = Annotated[float, Field(ge=1, le=1)]
LONGEST_SHOWN = 60
MOST_MISSING = 5


class Clash(NamedTuple):
    """A value that is right by itself and does not go with another."""

    key: str
    found: object
    wanted: str


class Section(BaseModel):
    """A mapping of config.yaml. Numbers are finite, nothing is converted; keys that no field names are kept."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, allow_inf_nan=False, protected_namespaces=())

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_other_type(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse what equals the only value that is wanted and is another thing: 6.0 frames, or a switch of 1."""
        annotation = cls.model_fields[str(info.field_name)].annotation
        alike = [choice for choice in get_args(annotation) if get_origin(annotation) is Literal and choice == value]
        if alike and type(alike[0]) is not type(value):
            raise ValueError(f"{alike[0]!r}")
        return value

    def clashes(self) -> Iterator[Clash]:
        """Give the values that do not go together, keys as seen from this section."""
        yield from ()


class Config(Section):
    """The whole of config.yaml."""

    scope_map: list[str] | str | None = None
    excludes: list[str] | str | None = None
    vocab_size: Vocabulary | None = None

    def clashes(self) -> Iterator[Clash]:
        """Give what FunASR's loader of weights cannot use, or would leave random."""
        names = self.scope_map.split(",") if isinstance(self.scope_map, str) else self.scope_map or []
        if len(names) % 2:
            yield Clash("scope_map", self.scope_map, "pairs of prefixes, in the file and in the network")
        if self.excludes:
            yield Clash("excludes", self.excludes, "none: FunASR would leave those weights random")


class ClosedSection(Section):
    """A mapping that is handed to a class of FunASR which refuses keys that it does not know."""

    model_config = ConfigDict(extra="forbid")


C = TypeVar("C", bound=Config)


def check(raw: Mapping[str, Any], schemas: Mapping[str, type[C]], family: str, place: Path) -> C:
    """Return the configuration as typed by the schema of its `model`.

    Raises:
        UserError: there is no such model in the family, or a value is missing, of another type, out of its range, or
            does not go with another; names the first such key and counts the others.
    """
    kind = raw.get("model")
    models.refuse(kind, place)
    if not isinstance(kind, str) or kind not in schemas:
        hint = _missing(["model"], family) if kind is None else f" model: found {_shown(kind)}, wanted "
        wanted = "" if kind is None else f"{' or '.join(schemas)}, which the family {family} knows"
        right = models.find(kind) if isinstance(kind, str) else None
        raise UserError(f"{place}{hint}{wanted}" + (f"; it is of the family {right}" if right else ""))
    schema = schemas[kind]
    try:
        config = schema.model_validate(dict(raw))
    except ValidationError as e:
        raise UserError(f"{place}{_explain(e.errors(include_url=False), raw, schema, family)}") from e
    for key, found, wanted in config.clashes():
        raise UserError(f"{place} {key}: found {_shown(found)}, wanted {wanted}")
    return config


def unknown(section: Section, above: str = "") -> list[str]:
    """Name the keys of a configuration that its schema does not know, such as `specaug_conf` or `model_conf.seed`."""
    names = [f"{above}{key}" for key in section.model_extra or {}]
    for key in type(section).model_fields:
        value = getattr(section, key)
        names += unknown(value, f"{above}{key}.") if isinstance(value, Section) else []
    return names


def _explain(errors: Sequence[ErrorDetails], raw: Mapping[str, Any], schema: type[Section], family: str) -> str:
    """Return what is wrong in one line: all that is missing, or else the first value that is not right."""
    missing = [".".join(map(str, e["loc"])) for e in errors if _absent(e)]
    if missing:
        return _missing(missing, family)
    first, steps = errors[0], _reachable(errors[0]["loc"], raw)
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    if first["type"] == "extra_forbidden":
        hint = did_you_mean(str(steps[-1]), _fields(schema, steps[:-1]))
        return f" {_name(steps)}: found a key that FunASR's class does not take; {hint}{more}"
    said = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    return f" {_name(steps)}: found {_shown(first['input'])}, wanted {said}{more}"


def _name(steps: Sequence[str | int]) -> str:
    return ".".join(str(step)[:LONGEST_SHOWN] for step in steps)


def _reachable(loc: Sequence[Any], raw: Any) -> list[str | int]:
    """Return the steps of a pydantic location that are keys of the file: a union adds its member, which is not."""
    steps: list[str | int] = []
    for step in loc:
        if not (isinstance(raw, Mapping) and step in raw) and not (isinstance(raw, list) and isinstance(step, int)):
            break
        raw = raw[step]
        steps.append(step)
    return steps or [str(loc[0])]


def _absent(error: ErrorDetails) -> bool:
    """Tell whether an error is of a key that is not there, or of a needed section that is empty."""
    return error["type"] == "missing" or (error["input"] is None and error["type"] in {"model_type", "dict_type"})


def _missing(keys: Sequence[str], family: str) -> str:
    more = f" and {len(keys) - MOST_MISSING} more" if len(keys) > MOST_MISSING else ""
    return (
        f": no {', '.join(keys[:MOST_MISSING])}{more}; the family {family} needs it. Is this a {family} checkpoint? If "
        "it is, its configuration.json may hold what config.yaml lacks: add it there, and `kiln pin` the "
        "model"
    )


def _fields(schema: type[Section], loc: Sequence[str | int]) -> Mapping[str, Any]:
    """Return the fields of the section at a location of a schema."""
    for step in loc:
        schema = _section_of(schema.model_fields[str(step)].annotation)
    return schema.model_fields


def _section_of(annotation: Any) -> type[Section]:
    """Return the section in an annotation such as `Encoder | None`."""
    parts = getattr(annotation, "__args__", (annotation,))
    return next(part for part in parts if isinstance(part, type) and issubclass(part, Section))


def _shown(value: object) -> str:
    """Return a value as it may stand in a message: short, on one line, and never a number of thousands of digits."""
    if isinstance(value, int) and value.bit_length() > 64:
        return f"a whole number of {value.bit_length()} bits"
    if isinstance(value, Mapping | list):
        return f"a {'mapping' if isinstance(value, Mapping) else 'list'} of {len(value)}"
    text = repr(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."
