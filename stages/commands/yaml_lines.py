"""Lines put into a YAML file: a round trip through a parser would move its comments, this cannot."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from pydantic import TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from stages.core.errors import UserError
from stages.core.params.section import Key


def check_name(name: str, what: str) -> None:
    """Raise UserError unless a name can be a key of params.yaml: `123` and `null` are other things there."""
    try:
        TypeAdapter(Key).validate_python(YAML(typ="safe", pure=True).load(name))
    except (ValidationError, YAMLError) as e:
        raise UserError(
            f"{what}: found {name!r}, wanted a name of lower-case letters, digits and _ that YAML reads as a text"
        ) from e


def insert(text: str, path: tuple[str, ...], key: str, lines: Sequence[str]) -> str:
    """Insert the lines of a key after the last line of its table, unless the table has the key, and return the text.

    path: the keys that lead to the table. lines: without the table's indent.

    Raises:
        UserError: the table is not there, empty or in braces.
    """
    table = _table(text, path)
    if key in _keys(table):
        return text
    indent = " " * table.value[0][0].start_mark.column
    rows = text.splitlines()
    place = _last_row(table) + 1
    rows[place:place] = [indent + line for line in lines]
    return "\n".join(rows) + "\n"


def replace(text: str, path: tuple[str, ...], key: str, lines: Sequence[str]) -> str:
    """Replace the lines of a table's key and all that is in it, and return the text; `lines` have no table indent.

    Raises:
        UserError: the table is not there, empty or in braces.
    """
    node, value = _keys(_table(text, path))[key]
    rows = text.splitlines()
    rows[node.start_mark.line : _last_row(value) + 1] = [" " * node.start_mark.column + line for line in lines]
    return "\n".join(rows) + "\n"


def set_value(text: str, path: tuple[str, ...], value: str) -> str:
    """Replace the value of a key, whether its table is written in lines or in braces.

    path: the keys that lead to the value, which is there.
    """
    node: Node = YAML().compose(text)
    for step in path:
        node = _keys(node)[step][1]
    return text[: node.start_mark.index] + scalar(value) + text[node.end_mark.index :]


def scalar(value: str) -> str:
    """Write a text as YAML, in quotes where it needs them."""
    plain = re.fullmatch(r"[A-Za-z][\w.+-]*", value, re.ASCII) and YAML(typ="safe", pure=True).load(value) == value
    return value if plain else json.dumps(value)


def lines_of(text: str, path: tuple[str, ...], key: str) -> list[str]:
    """Return the lines of a key and all that is in it, without the table's indent.

    Raises:
        UserError: the table is not there, empty or in braces.
    """
    node, value = _keys(_table(text, path))[key]
    rows = text.splitlines()[node.start_mark.line : _last_row(value) + 1]
    return [row[node.start_mark.column :] for row in rows]


def _table(text: str, path: tuple[str, ...]) -> MappingNode:
    """Find a table that is written with one entry a line."""
    node = YAML().compose(text)
    for step in path:
        node = _keys(node)[step][1] if isinstance(node, MappingNode) and step in _keys(node) else None
    if not isinstance(node, MappingNode) or not node.value or node.flow_style:
        raise UserError(f"params.yaml: {'.'.join(path)} must be a table with at least one entry, one on each line")
    return node


def _keys(table: Node) -> dict[str, tuple[Node, Node]]:
    return {key.value: (key, value) for key, value in table.value}


def _last_row(node: Node) -> int:
    """Return the number of a node's last line: YAML's parser ends a block only where the next thing begins."""
    while isinstance(node, MappingNode | SequenceNode) and node.value and not node.flow_style:
        last = node.value[-1]
        node = last[1] if isinstance(node, MappingNode) else last
    row: int = node.end_mark.line
    return row
