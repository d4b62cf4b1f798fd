"""config.yaml as FunASR reads it, with OmegaConf, so that `1e-05` is a number; and nothing that it could look up."""

from __future__ import annotations

import copy
import functools
import io
import re
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from stages.core.errors import UserError, first_line

MOST_BYTES = 256 * 1024  # FunASR's largest has 4 KiB; the time to read one grows with it
DEEPEST = 20  # mappings and lists within each other; emotion2vec's has 4
REFERENCE = re.compile(r"\$\{\w+(\.\w+)*\}")  # to another value of the same file


def read(path: Path) -> dict[str, Any]:
    """Read a config.yaml.

    Raises:
        UserError: it is missing, too large, not UTF-8, not YAML or not a mapping, has a key twice, or has an alias or
            an interpolation such as `${oc.env:HOME}`, which OmegaConf would look up outside the file. A whole value
            that is a reference to another of the file, as `${model_conf.sos}` of SenseVoice's training, stays text.
    """
    return copy.deepcopy(_parse(_read_bytes(path), path))


@functools.lru_cache(maxsize=16)  # FunASR's module is built again for each mode and each look at the data
def _parse(data: bytes, path: Path) -> dict[str, Any]:
    """Parse what a config.yaml holds; raise what `read` raises."""
    try:
        text = data.decode("utf-8")
        _refuse_references(text, path)
        # Not resolved: a marker of OmegaConf's own, `???`, stays the text that it is.
        config: Any = OmegaConf.to_container(OmegaConf.load(io.StringIO(text)), resolve=False)
    except UserError:
        raise
    except yaml.MarkedYAMLError as e:
        where = f" line {e.problem_mark.line + 1}" if e.problem_mark else ""
        raise UserError(f"{path}{where} cannot be read: {(e.problem or e.context or '').partition(chr(10))[0]}") from e
    except Exception as e:  # YAML's constructors and OmegaConf raise what they like
        raise UserError(f"{path} cannot be read: {type(e).__name__}: {first_line(e)}") from e
    if not isinstance(config, dict):
        raise UserError(f"{path}: found {type(config).__name__}, wanted a mapping")
    others = [key for key in config if not isinstance(key, str) or "${" in key]
    if others:
        raise UserError(f"{path}: found the key {others[0]!r:.60}, wanted names only")
    return dict(config)


def _read_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as f:
            data = f.read(MOST_BYTES + 1)
    except OSError as e:
        raise UserError(f"{path} cannot be read: {type(e).__name__}: {first_line(e)}") from e
    if len(data) > MOST_BYTES:
        raise UserError(f"{path}: found over {MOST_BYTES} bytes, wanted the few of a configuration")
    return data


def _refuse_references(text: str, path: Path) -> None:
    """Refuse what makes a short file large or has something looked up, before anything is made of it."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        line = f"{path} line {event.start_mark.line + 1}"
        if isinstance(event, yaml.AliasEvent):
            raise UserError(f"{line}: found the alias *{event.anchor[:60]}, wanted the value itself")
        if isinstance(event, yaml.ScalarEvent) and "${" in event.value and not REFERENCE.fullmatch(event.value):
            raise UserError(
                f"{line}: found {event.value[:60]!r}, wanted a plain value: nothing is looked up for a checkpoint"
            )
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise UserError(f"{line}: found over {DEEPEST} mappings and lists within each other, wanted fewer")


def write(config: dict[str, Any], path: Path) -> None:
    """Write a configuration so that FunASR reads the same: the text '1e-05' in quotes, the number without."""
    path.write_text(OmegaConf.to_yaml(OmegaConf.create(config)), encoding="utf-8")
