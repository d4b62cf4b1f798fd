"""One line of what `kiln doctor` prints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "blocks"]


@dataclass(frozen=True)
class Finding:
    """What was found of one thing; where it is not what was wanted, what follows from that and how to mend it.

    level: `blocks` where a configured build fails, or a required one can not be measured.
    """

    check: str
    found: str
    level: Level = "ok"
    wanted: str = ""
    consequence: str = ""
    fix: str = ""


def level(*, blocks: bool) -> Level:
    """Return the level of something that is wrong."""
    return "blocks" if blocks else "warning"
