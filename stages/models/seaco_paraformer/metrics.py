"""How well a recognizer finds hotwords, beside what counts for every recognizer.

A recording's `hotwords` in the manifest are the words that may be listed, those that are said first.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

from stages.core.statistics import Counts
from stages.corpora.manifest import Recording
from stages.models import accuracy
from stages.models.shared import asr
from stages.models.shared.asr import Outcome, normalized

METRICS = accuracy.SEACO_PARAFORMER.metrics


def hotwords(recording: Recording) -> list[str]:
    """Return the words that may be listed for a recording: the manifest's or, where it has none, one of its text.

    That is the longest of several letters or, as in Chinese, three characters out of the middle; so any transcribed
    data tells what a list of one word changes, and only those with `hotwords` what longer ones do.
    """
    if recording.hotwords:
        return recording.hotwords
    words = asr.split_words(normalized(recording.text))
    longest = max(words, key=len, default="")
    middle = max(0, len(words) // 2 - 1)
    return [word for word in [longest if len(longest) > 1 else "".join(words[middle : middle + 3])] if word]


def measure(
    folder: Path, recordings: Sequence[Recording], references: Sequence[Outcome], outcomes: Sequence[Outcome]
) -> list[Counts]:
    """Count what Paraformer counts of each recording, and how its hotwords fared, as (numerator, denominator).

    hotword_recall: share of the hotwords in the truth that are in the text, whether the mode listed them or not, so
    that modes compare. hotword_false_alarms: hotwords in the text that are not in the truth, for each recording.
    """
    counts = asr.measure_with_times(folder, recordings, references, outcomes)
    return [{**c, **_hotwords(r, outcome)} for c, r, outcome in zip(counts, recordings, outcomes, strict=True)]


@functools.lru_cache(maxsize=2**16)  # hotwords come again with every recording
def _strip_spaces(text: str) -> str:
    """Return a text as error rates see it, without spaces."""
    return normalized(text).replace(" ", "")


def _hotwords(recording: Recording, outcome: Outcome) -> Counts:
    truth, text = map(_strip_spaces, (recording.text, outcome.text))
    words = [word for word in map(_strip_spaces, hotwords(recording)) if word]  # `!` is in any text
    spoken = [word for word in words if word in truth]
    found = [word for word in words if word in text]
    return {
        "hotword_recall": (sum(word in found for word in spoken), len(spoken)),
        "hotword_false_alarms": (sum(word not in spoken for word in found), 1),
    }
