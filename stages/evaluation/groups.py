"""Which recordings of a data set belong together."""

from __future__ import annotations

from collections.abc import Sequence

from stages.core.statistics import Groups
from stages.corpora.manifest import Recording


def group(recordings: Sequence[Recording]) -> Groups:
    """Return the speakers and conditions of recordings; each is its own cluster where nobody knows who speaks."""
    return Groups(
        clusters=[r.speaker or r.id for r in recordings],
        speakers=[r.speaker for r in recordings],
        conditions=[r.condition for r in recordings],
    )
