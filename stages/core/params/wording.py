"""What is wrong with a settings file, in a user's words instead of pydantic's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from reprlib import Repr
from typing import Any

from stages.core.errors import did_you_mean

FOUND = Repr()  # of a value that may be a whole file
FOUND.maxlevel, FOUND.maxdict, FOUND.maxlist, FOUND.maxstring, FOUND.maxother = 2, 3, 3, 120, 120


def explain(error: Mapping[str, Any], raw: Mapping[str, Any], schema: dict[str, Any]) -> str:
    """Return one line for one pydantic error: the key, what was found and what was wanted.

    raw: what was validated. schema: the JSON schema that it was validated against.
    """
    key = _printable(".".join(map(str, _reachable(error["loc"], raw))))
    if error["type"] == "extra_forbidden":
        return f"{key}: unknown key; {did_you_mean(str(error['loc'][-1]), _fields(error['loc'][:-1], schema))}"
    if error["type"] == "missing":
        return f"{'.'.join(filter(None, [key, str(error['loc'][-1])]))}: missing"
    message = " ".join(error["msg"].removeprefix("Value error, ").split())  # which may quote what was found
    return f"{key}: found {FOUND.repr(error['input'])}; {message}"


def _printable(name: str) -> str:
    """Return a key as it is, or in quotes where it has control characters such as a line's end."""
    return name if name.isprintable() else repr(name)


def _reachable(loc: Sequence[Any], raw: Any) -> list[str | int]:
    """Return the steps of a pydantic location that are keys of the file: a union adds its tag, which is not."""
    steps = []
    for step in loc:
        if (isinstance(raw, dict) and step in raw) or (isinstance(raw, list) and isinstance(step, int)):
            raw = raw[step]
            steps.append(step)
    return steps


def _fields(loc: tuple[str | int, ...], schema: dict[str, Any]) -> list[str]:
    """Return the keys that may stand at a pydantic location, found by walking the schema."""
    node: dict[str, Any] = schema
    for step in loc:
        node = _resolve(node, schema)
        if "discriminator" in node:
            node = {"$ref": node["discriminator"]["mapping"][step]}
        elif isinstance(step, int):
            node = node["items"]
        else:
            node = node.get("properties", {}).get(step) or _resolve_values(node)
    return list(_resolve(node, schema).get("properties", {}))


def _resolve_values(node: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a mapping's values; pydantic files them under the pattern of a constrained key."""
    patterns: dict[str, dict[str, Any]] = node.get("patternProperties", {})
    values: dict[str, Any] = next(iter(patterns.values()), node.get("additionalProperties", {}))
    return values


def _resolve(node: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node:
        node = schema["$defs"][node["$ref"].rsplit("/", 1)[-1]]
    return node
