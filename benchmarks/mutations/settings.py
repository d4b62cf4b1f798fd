"""Mutated params.yaml through the function that every command and stage reads it with, and the plan made of it."""

from __future__ import annotations

import copy
import io
import math
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML

from benchmarks.mutations.forked import Tally, ending
from stages.core import params, plan

DRAWN = 340  # of the values at each key, of which there are ten thousand
REMOVED = object()
VALUES: dict[str, Any] = {
    "removed": REMOVED,
    "null": None,
    "text": "wrong",
    "negative": -3,
    "zero": 0,
    "fraction": 0.37,
    "huge": 10**9,
    "enormous": 10**60,
    "nan": math.nan,
    "inf": math.inf,
    "true": True,
    "list": [1, "a"],
    "mapping": {"a": 1},
    "number as key": {1: 2},
    "nested": {"a": {"b": [1]}},
    "control character": "a\x01b",
}
NEVER = {"enormous", "nan", "inf", "control character", "number as key"}  # no key may hold these
TEXTS = {
    "control character": "x: \x01\n",
    "escaped control character": 'x: "\\e[31m"\n',
    "surrogate": 'x: "\\ud800"\n',
    "deep list": "x: " + "[" * 5000 + "]" * 5000 + "\n",
    "deep mapping": "x: " + "{a: " * 2000 + "1" + "}" * 2000 + "\n",
    "5,000 digits": "x: " + "9" * 5000 + "\n",
    "hexadecimal digits": "x: 0x" + "9" * 5000 + "\n",
    "thirtieth of February": "x: 2026-02-30\n",
    "hour 99": "x: 2026-01-01T99:99:99\n",
    "zone of 99 hours": "x: 2026-01-01T00:00:00+99:99\n",
    "list of itself": "x: &x [*x]\n",
    "no anchor": "x: *nowhere\n",
    "laughs": "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9) if n else 1}]\n" for n in range(12)),
    "key twice": "export: {}\n",
    "object of Python": "x: !!python/object/apply:os.system [ls]\n",
    "tab": "\tx: 1\n",
    "two documents": "---\nx: 1\n",
    "NUL": "\0",
    "no number": "x: !!int abc\n",
    "mapping as key": "? {a: 1}\n: 2\n",
    "lists as key": "? [[1], 2]\n: 2\n",
    "merge of a number": "x: {<<: 5}\n",
    "unclosed": "x: [\n",
}


def paths(settings: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the place of every mapping, value and list of settings, the whole excepted."""
    items = (
        settings.items() if isinstance(settings, dict) else enumerate(settings) if isinstance(settings, list) else ()
    )
    for key, value in items:
        yield (*above, key)
        yield from paths(value, (*above, key))


def change(settings: Any, path: tuple[Any, ...], value: Any) -> Any:
    """Return a copy of settings with another value at a place, or without it where the value is REMOVED."""
    new = copy.deepcopy(settings)
    parent = new
    for step in path[:-1]:
        parent = parent[step]
    if value is REMOVED:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    return new


def mutations(text: str) -> Iterator[tuple[str, bytes, bool]]:
    """Yield mutations of a file by name, and whether each must be refused."""
    for name, line in TEXTS.items():
        yield name, (text + line).encode("utf-8", "surrogatepass"), True
    yield "not UTF-8", text.encode() + b"x: \xc4\n", True
    yield "huge", text.encode() + b"#" * 2**20, True
    for share in range(1, 10):
        yield f"cut at {share} tenths", text.encode()[: len(text) * share // 10], True
    settings, yaml = YAML(typ="safe", pure=True).load(text), YAML(typ="safe")
    places = [(path, kind) for path in paths(settings) for kind in VALUES]
    rng = np.random.default_rng(0)
    for index in rng.choice(len(places), DRAWN, replace=False):
        path, kind = places[index]
        out = io.BytesIO()
        yaml.dump(change(settings, path, VALUES[kind]), out)
        yield f"{'.'.join(map(str, path))}: {kind}", out.getvalue(), kind in NEVER


def run() -> list[Tally]:
    """Try every mutation of the project's own params.yaml."""
    tally = Tally("params.yaml")
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch) / "params.yaml"
        for name, data, bad in mutations(params.PARAMS.read_text(encoding="utf-8")):
            place.write_bytes(data)
            tally.add(name, ending(partial(_read, place)), bad=bad)
    return [tally]


def _read(place: Path) -> None:
    plan.derive(params.load(place))
