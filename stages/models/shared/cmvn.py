"""am.mvn: the shift and scale of each feature, in Kaldi's text form as FunASR's front end reads it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

from stages.core.errors import UserError

FILE = "am.mvn"
PARTS = ("<AddShift>", "<Rescale>")


def check(folder: Path, size: int) -> None:
    """Refuse a checkpoint whose am.mvn is not one finite shift and one finite scale for each of `size` features.

    What is missing makes every recording silence or noise.

    Raises:
        UserError: it is missing, or has too few, too many or other numbers.
    """
    path = folder / FILE
    for part, numbers in zip(PARTS, read(folder), strict=True):
        if len(numbers) != size:
            wanted = f"wanted {size}, which is frontend_conf's n_mels * lfr_m"
            raise UserError(f"{path}: found {len(numbers)} numbers in {part}, {wanted}")
        wrong = [f"{word[:20]!r} at place {i}" for i, word in enumerate(numbers) if not _finite(word)]
        if wrong:
            raise UserError(f"{path}: found {wrong[0]} of {part}, wanted a finite number ({len(wrong)} are not)")


def read(folder: Path) -> tuple[list[str], list[str]]:
    """Read the shifts and the scales of a checkpoint's am.mvn, as they are written there.

    FunASR reads the line after each part's name, drops three words at its start and one at its end, and takes the
    rest for numbers.

    Raises:
        UserError: it is missing, or has not both parts.
    """
    path = folder / FILE
    try:
        lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as e:
        raise UserError(f"{path} cannot be read ({type(e).__name__}); wanted the checkpoint's own {FILE}") from e
    shift, scale = (_part(lines, part, path) for part in PARTS)
    return shift, scale


def _part(lines: Sequence[list[str]], part: str, path: Path) -> list[str]:
    """Return the numbers on the line after a part's name."""
    follows = [after for line, after in itertools.pairwise(lines) if line[:1] == [part]]
    words = follows[-1] if follows else []
    if words[:1] != ["<LearnRateCoef>"]:
        raise UserError(f"{path}: found no {part} with a line of <LearnRateCoef> after it; wanted Kaldi's text form")
    return words[3:-1]


def _finite(word: str) -> bool:
    try:
        return math.isfinite(float(word)) and abs(float(word)) < 3e38  # as fp32 holds it
    except ValueError:
        return False
