"""Which speakers are in which split: no speaker is in two, and a seed decides, not the order of the files."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import zip_longest

from stages.core.errors import UserError
from stages.core.params.section import Split
from stages.corpora.imports.utterances import Utterance


def assign_speakers(
    utterances: Sequence[Utterance], items: Mapping[Split, int], seed: int
) -> dict[Split, list[Utterance]]:
    """Assign each speaker to the split that lacks most utterances, and order each split's utterances.

    In a split speakers take turns, so that its first `items` are of as many speakers as can be.

    Raises:
        UserError: there are fewer speakers than splits.
    """
    per_speaker: dict[str, list[Utterance]] = defaultdict(list)
    for utterance in sorted(utterances, key=lambda each: _draw_number(seed, each.id)):
        per_speaker[utterance.speaker].append(utterance)
    if len(per_speaker) < len(items):
        wanted = f"wanted at least {len(items)}: {', '.join(items)} must not share one"
        raise UserError(
            f"found {len(per_speaker)} speaker{'' if len(per_speaker) == 1 else 's'} with usable utterances, {wanted}"
        )
    chosen: dict[Split, list[list[Utterance]]] = {split: [] for split in items}
    held = dict.fromkeys(items, 0)
    for speaker in sorted(per_speaker, key=lambda each: _draw_number(seed, each)):
        neediest = min(items, key=lambda split: held[split] / items[split])
        chosen[neediest].append(per_speaker[speaker])
        held[neediest] += len(per_speaker[speaker])
    return {split: _interleave(speakers) for split, speakers in chosen.items()}


def _draw_number(seed: int, name: str) -> bytes:
    """Draw a number for a name: the same on every machine, and whatever other names there are."""
    return hashlib.sha256(f"{seed} {name}".encode()).digest()


def _interleave(speakers: Sequence[Sequence[Utterance]]) -> list[Utterance]:
    return [utterance for turn in zip_longest(*speakers) for utterance in turn if utterance is not None]
