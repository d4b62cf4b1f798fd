"""How good SenseVoice is: its text in either way of writing, and its tags, against the fp32 baseline and the truth."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from stages.core.errors import UserError, did_you_mean
from stages.core.files import read_json, write_json
from stages.core.statistics import Counts
from stages.corpora.manifest import Recording
from stages.models.accuracy import SENSEVOICE, TAGS
from stages.models.shared import asr, pieces

MODES, METRICS = SENSEVOICE
HEADLINE = asr.HEADLINE
WRITTEN = "withitn"
TRUTHS = ("language", "label", "event")  # a recording's fields, in the order of TAGS
TAG = re.compile(r"<\|([^|]*)\|>")


@dataclass(frozen=True)
class Outcome(asr.Outcome):
    """What the recognizer makes of one recording: token ids and text as FunASR decodes them, without tags.

    tags: language, emotion, event and way of writing, as FunASR's text begins with them; fewer where it has fewer.
    textnorm: the way of writing that it was asked for.
    """

    tags: list[str]
    textnorm: str


def parse(tokens: list[int], text: str, textnorm: str) -> Outcome:
    """Take FunASR's text apart: `<|en|><|SAD|><|Speech|><|woitn|>go to floor two`."""
    return Outcome(tokens, TAG.sub("", text).strip(), TAG.findall(text), textnorm)


def measure(
    folder: Path, recordings: Sequence[Recording], references: Sequence[Outcome], outcomes: Sequence[Outcome]
) -> list[Counts]:
    """Count every metric of each recording as (numerator, denominator).

    Error rates and agreement of tokens as `stages.models.shared.asr` has them, tags among the tokens. With inverse text
    normalisation the truth is a recording's `written`, where it has that. A tag that nobody knows is not counted.

    Raises:
        UserError: a recording's tag is none of the model's.
    """
    _check_tags(folder, recordings)
    truths = [
        r.model_copy(update={"text": r.written or r.text}) if o.textnorm == WRITTEN else r
        for r, o in zip(recordings, outcomes, strict=True)
    ]
    counts = asr.measure(folder, truths, references, outcomes)
    tags = [_count_tags(*line) for line in zip(recordings, references, outcomes, strict=True)]
    return [{**of_text, **of_tags} for of_text, of_tags in zip(counts, tags, strict=True)]


def _check_tags(folder: Path, recordings: Sequence[Recording]) -> None:
    known = _tags_among_pieces(folder)
    for recording in recordings:
        for field in TRUTHS:
            truth = getattr(recording, field)
            if truth and truth.lower() not in known:
                where = f"{recording.folder}: {recording.id}: found {field} {truth!r:.60}"
                raise UserError(f"{where}, wanted a tag of the model's; {did_you_mean(truth.lower(), known)}")


@functools.cache
def _tags_among_pieces(folder: Path) -> frozenset[str]:
    return frozenset(tag.lower() for piece in pieces.read(folder) for tag in TAG.findall(piece))


def _count_tags(recording: Recording, reference: Outcome, outcome: Outcome) -> Counts:
    known = [getattr(recording, field) for field in TRUTHS]
    counts: dict[str, tuple[float, float]] = {}
    for place, (name, truth) in enumerate(zip(TAGS, known, strict=True)):
        found, baseline = (_tag(o, place) for o in (outcome, reference))
        counts[f"{name}_accuracy"] = (float(found == truth.lower()), 1) if truth else (0, 0)
        counts[f"{name}_agreement"] = (float(found == baseline), 1)
    return counts


def _tag(outcome: Outcome, place: int) -> str | None:
    return outcome.tags[place].lower() if place < len(outcome.tags) else None


def write_outcomes(folder: Path, mode: str, outcomes: Sequence[Outcome]) -> None:
    """Keep outcomes of one mode for `read_outcomes`."""
    write_json(folder / f"{mode}.json", [asdict(outcome) for outcome in outcomes])


def read_outcomes(folder: Path, mode: str) -> list[Outcome]:
    """Read what `write_outcomes` kept, in the same order."""
    return [Outcome(**fields) for fields in read_json(folder / f"{mode}.json")]
