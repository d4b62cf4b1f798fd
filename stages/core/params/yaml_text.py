"""The text of a settings file, and what YAML makes of it: whatever is wrong there is one line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import ConstructorError, SafeConstructor
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.reader import ReaderError

from stages.core.errors import UserError, first_line

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")  # all but the tab and the line feed
LARGEST_BITS = 63
MOST_BYTES = 2**20  # the project's own has 20 KiB


class _Constructor(SafeConstructor):
    """Says the line of a value that cannot be made or used: the thirtieth of February, a number of 5,000 digits."""

    def construct_object(self, node: Any, deep: bool = False) -> Any:  # noqa: FBT001, FBT002  as the library calls it
        try:
            value = super().construct_object(node, deep)
        except (ValueError, TypeError, OverflowError) as e:
            raise ConstructorError(problem=first_line(e), problem_mark=node.start_mark) from e
        if problem := _unusable(value):
            raise ConstructorError(problem=problem, problem_mark=node.start_mark)
        return value


def _unusable(value: object) -> str | None:
    """Return why no setting can be this value, or None."""
    if isinstance(value, int) and value.bit_length() > LARGEST_BITS:
        return f"found a whole number of {value.bit_length()} bits, wanted at most {LARGEST_BITS}"
    if isinstance(value, str) and (control := CONTROL.search(value)):
        return f"found the control character {control[0]!r}, wanted text"
    return None


def read(path: Path) -> str:
    """Read the text of a settings file.

    Raises:
        UserError: it is missing, not a file, not UTF-8, or larger than any settings are.
    """
    try:
        with path.open("rb") as f:
            data = f.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise UserError(f"{path}: found over {MOST_BYTES} bytes, wanted the few of a settings file")
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except FileNotFoundError as e:
        raise UserError(f"{path} is not in this folder; run from the repository's root") from e
    except UnicodeDecodeError as e:
        line = data.count(b"\n", 0, e.start) + 1
        raise UserError(f"{path} line {line}: byte {data[e.start]:#04x} is not UTF-8; save the file as UTF-8") from e
    except OSError as e:
        raise UserError(f"{path} cannot be read: {e.strerror}") from e


def parse(text: str, name: str) -> Any:
    """Parse YAML that messages call `name`.

    Raises:
        UserError: it is not YAML, has a key twice, or a value that YAML has no form of.
    """
    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = _Constructor
    try:
        return yaml.load(text)
    except MarkedYAMLError as e:
        where = f" line {e.problem_mark.line + 1}" if e.problem_mark else ""
        raise UserError(f"{name}{where}: {first_line(e.problem or e.context)}") from e
    except ReaderError as e:
        line = text.count("\n", 0, e.position) + 1
        raise UserError(f"{name} line {line}: found the control character {chr(e.character)!r}, wanted text") from e
    except RecursionError as e:
        raise UserError(f"{name}: found mappings or lists too deep within each other, wanted a few levels") from e
    except Exception as e:
        raise UserError(f"{name} cannot be read: {first_line(e)}") from e
