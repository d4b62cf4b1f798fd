"""A key's lines are replaced and nothing else is: comments, order and other keys stay as they are."""

from __future__ import annotations

import pytest
from ruamel.yaml import YAML

from stages.commands import yaml_lines
from stages.core.errors import UserError

TEXT = """# head
quantize:
  graphs:  # a table
    one: {graph: simplify, recipe: int8}  # in a line
    two:
      graph: optimize  # in a block
      tuned: {kind: dynamic}
    three: {graph: optimize}
tail: 1
"""


@pytest.mark.parametrize("key", ["one", "two", "three"])
def test_only_the_key_s_lines_change(key: str):
    after = yaml_lines.replace(TEXT, ("quantize", "graphs"), key, [f"{key}:", "  graph: new"])
    before, found = (YAML(typ="safe").load(text) for text in (TEXT, after))
    assert found["quantize"]["graphs"][key] == {"graph": "new"}
    before["quantize"]["graphs"].pop(key)
    found["quantize"]["graphs"].pop(key)
    assert found == before
    kept = [line for line in TEXT.splitlines() if "#" in line and key not in line and "block" not in line]
    assert all(line in after.splitlines() for line in kept)


def test_a_table_that_is_not_there_is_named():
    with pytest.raises(UserError, match=r"quantize\.recipes must be a table"):
        yaml_lines.replace(TEXT, ("quantize", "recipes"), "one", ["one: 1"])


@pytest.mark.parametrize(
    ("path", "value"),
    [
        pytest.param(("quantize", "graphs", "one", "recipe"), "bf16", id="in-a-line"),
        pytest.param(("quantize", "graphs", "two", "graph"), "simplify", id="in-a-block"),
        pytest.param(("quantize", "graphs", "two", "tuned", "kind"), "a: {b}, # c", id="quoted"),
        pytest.param(("tail",), "null", id="a-word-of-yaml-s"),
        pytest.param(("tail",), "\u4f60\u2028", id="other-letters"),
    ],
)
def test_only_the_value_changes(path: tuple[str, ...], value: str):
    after = yaml_lines.set_value(TEXT, path, value)
    before, found = (YAML(typ="safe").load(text) for text in (TEXT, after))
    table = before
    for step in path[:-1]:
        table = table[step]
    table[path[-1]] = value
    assert found == before
    assert all(comment in after for comment in ("# head", "# a table", "# in a line", "# in a block"))
