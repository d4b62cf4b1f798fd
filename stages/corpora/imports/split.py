"""Which speakers are in which split: no speaker is in two, and a seed decides, not the order of the files."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import zip_longest

from stages.core.errors import UserError
from stages.core.params.section import Split
from stages.corpora.imports.utterances import Utterance


def by_speaker(utterances: Sequence[Utterance], items: Mapping[Split, int], seed: int) -> dict[Split, list[Utterance]]:
    """Give each speaker to the split that has least of what is wanted, and order each split's utterances.

    In a split speakers take turns, so that its first `items` are of as many speakers as can be.

    Raises:
        UserError: there are fewer speakers than splits.
    """
    of: dict[str, list[Utterance]] = defaultdict(list)
    for utterance in sorted(utterances, key=lambda each: _lot(seed, each.id)):
        of[utterance.speaker].append(utterance)
    if len(of) < len(items):
        wanted = f"wanted at least {len(items)}: {', '.join(items)} must not share one"
        raise UserError(f"found {len(of)} speaker{'' if len(of) == 1 else 's'} with usable utterances, {wanted}")
    chosen: dict[Split, list[list[Utterance]]] = {split: [] for split in items}
    held = dict.fromkeys(items, 0)
    for speaker in sorted(of, key=lambda each: _lot(seed, each)):
        neediest = min(items, key=lambda split: held[split] / items[split])
        chosen[neediest].append(of[speaker])
        held[neediest] += len(of[speaker])
    return {split: _in_turn(speakers) for split, speakers in chosen.items()}


def _lot(seed: int, name: str) -> bytes:
    """Draw a number for a name: the same on every machine, and whatever other names there are."""
    return hashlib.sha256(f"{seed} {name}".encode()).digest()


def _in_turn(speakers: Sequence[Sequence[Utterance]]) -> list[Utterance]:
    return [utterance for turn in zip_longest(*speakers) for utterance in turn if utterance is not None]
