"""How good punctuation is: the F1 of its marks against the known text, and agreement with the fp32 baseline."""

# ruff: noqa: RUF001  the marks are Chinese

from __future__ import annotations

import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from stages.core.errors import UserError
from stages.core.files import read_json, write_json
from stages.core.statistics import Counts
from stages.corpora.manifest import Recording
from stages.models.accuracy import CT_TRANSFORMER, MARKS
from stages.models.shared import checkpoint

NONE = "_"  # FunASR's name for no mark
MODES, METRICS = CT_TRANSFORMER
HEADLINE = "f1"


@dataclass(frozen=True)
class Outcome:
    """What FunASR makes of one text. marks: after each token, `_` for none.

    The realtime kind gives no mark after the last token: FunASR withholds that mark until more comes.
    """

    text: str
    marks: list[str]


def read_marks(text: str, known: Collection[str] = MARKS.values()) -> tuple[list[str], list[str]]:
    """Split a punctuated text as FunASR does: its tokens, and the `known` mark after each, `_` for none.

    Marks count in both widths; those that are not known are left out.
    """
    split_words = _word_splitter()
    tokens: list[str] = []
    marks: list[str] = []
    text = widen_marks(text)
    for mark in set(find_other_marks(text, known)):
        text = text.replace(mark, " ")
    for piece in re.split(f"({'|'.join(map(re.escape, known))})", text):
        if piece not in known:
            words = split_words(piece)
            tokens += words
            marks += [NONE] * len(words)
        elif marks:
            marks[-1] = piece
    return tokens, marks


@functools.cache
def _word_splitter() -> Callable[[str], list[str]]:
    """Import FunASR's function that splits a text without marks into tokens."""
    with checkpoint.importing_funasr():
        from funasr.models.ct_transformer.utils import split_words

    split: Callable[[str], list[str]] = split_words
    return split


def widen_marks(text: str) -> str:
    """Return the text with full-width marks for half-width ones; points and commas in numbers and names stay."""
    text = text.translate(str.maketrans("｡､", "。、"))
    text = re.sub(r"(?<!\d),|,(?!\d)", "，", text)
    text = re.sub(r"(?<![0-9A-Za-z])\.|\.(?![0-9A-Za-z])", "。", text)
    return text.replace("?", "？")


def find_other_marks(text: str, known: Collection[str] = MARKS.values()) -> list[str]:
    """Return the marks of a text, in order, that are none of the known and do not stand inside a word or a number."""
    inside = r"(?<=[0-9A-Za-z])[-'’.,&/_@](?=[0-9A-Za-z])"
    bare = re.sub(inside, "", text)
    return [c for c in bare if unicodedata.category(c).startswith("P") and c not in known and c not in "%#*@&"]


def split_text(recording: Recording) -> tuple[list[str], list[str]]:
    """Split the text of a recording as `read_marks` does.

    Raises:
        UserError: it has none.
    """
    tokens, marks, _ = _split_truth(recording.text)
    if not tokens:
        raise UserError(f"{recording.folder}: {recording.id} has no text, and this model punctuates text")
    return tokens, marks


@functools.lru_cache(maxsize=2**16)  # recordings are counted again when there are more of them
def _split_truth(text: str) -> tuple[list[str], list[str], list[str]]:
    """Split a text of a data set as `read_marks` does, and find its marks that the metrics do not know."""
    return *read_marks(text), find_other_marks(widen_marks(text))


def measure(
    folder: Path,  # noqa: ARG001  both kinds are measured alike
    recordings: Sequence[Recording],
    references: Sequence[Outcome],
    outcomes: Sequence[Outcome],
) -> list[Counts]:
    """Count every metric of each text as (numerator, denominator).

    F1 of a mark is 2 TP / (2 TP + FP + FN) over the positions after tokens, `f1` the micro-average over the
    four marks (Che et al., "Punctuation Prediction for Unsegmented Transcript Based on Word Vector", LREC
    2016, which the IWSLT sets are scored by): one mark in the place of another is a false alarm of the one
    and a miss of the other. `mark_agreement` is the share of positions with the same mark as the baseline,
    among those where either has one: it is not flattered by the many with none. `other_marks` is the share of the
    text's own marks that the metric does not know, and which are left out.
    """
    return [_count(*triple) for triple in zip(recordings, references, outcomes, strict=True)]


def _count(recording: Recording, reference: Outcome, outcome: Outcome) -> Counts:
    marks = outcome.marks
    text = split_text(recording)[1]
    expected = text[: len(marks)]  # without what the realtime kind withholds
    # A count in place of scikit-learn's, whose import takes longer than all the scoring; a test holds it to that.
    right = Counter(a for a, b in zip(expected, marks, strict=True) if a == b)
    scores = {name: (2 * right[m], marks.count(m) + expected.count(m)) for name, m in MARKS.items()}
    others = _split_truth(recording.text)[2]
    pairs = [pair for pair in zip(marks, reference.marks, strict=True) if pair != (NONE, NONE)]
    return {
        "f1": (sum(top for top, _ in scores.values()), sum(bottom for _, bottom in scores.values())),
        **{f"f1_{name}": score for name, score in scores.items()},
        "mark_agreement": (sum(a == b for a, b in pairs), len(pairs)),
        "other_marks": (len(others), len(others) + len(text) - text.count(NONE)),
    }


def write_outcomes(folder: Path, mode: str, outcomes: Sequence[Outcome]) -> None:
    """Keep outcomes of one mode for `read_outcomes`."""
    write_json(folder / f"{mode}.json", [asdict(outcome) for outcome in outcomes])


def read_outcomes(folder: Path, mode: str) -> list[Outcome]:
    """Read what `write_outcomes` kept, in the same order."""
    return [Outcome(**outcome) for outcome in read_json(folder / f"{mode}.json")]
