"""What a recognizer makes of a recording, how its errors are counted, and FunASR's token list: for all Paraformers.

Error rates are the Levenshtein alignment's, (S + D + I) / N (jiwer; Morris et al., "From WER and RIL to MER
and WIL", 2004), pooled over recordings, so a long one weighs more. Case, punctuation and spaces do not count.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jiwer

from stages.core.files import read_json, write_json
from stages.core.statistics import Counts
from stages.corpora.manifest import Recording
from stages.models.accuracy import EDITS, RECOGNIZER
from stages.models.shared import tokens

if TYPE_CHECKING:
    from funasr.tokenizer.char_tokenizer import CharTokenizer

HEADLINE = "cer"
METRICS = RECOGNIZER


@dataclass(frozen=True)
class Outcome:
    """What a recognizer makes of one recording: the network's best token ids and FunASR's text of them.

    times: when each token begins and ends, in ms, and nothing of one that is not shown; none of a graph without times.
    """

    tokens: list[int]
    text: str
    times: list[list[int]] = field(default_factory=list, kw_only=True)


def measure(
    folder: Path,  # noqa: ARG001  no checkpoint has a say in it
    recordings: Sequence[Recording],
    references: Sequence[Outcome],
    outcomes: Sequence[Outcome],
) -> list[Counts]:
    """Count every metric of each recording as (numerator, denominator).

    cer: over characters. wer: over words, each Chinese character being one, as scoring of mixed speech has it
    (the mixed error rate of Shi et al., "The ASRU 2019 Mandarin-English code-switching speech recognition
    challenge", 2020). Each also by kind of edit. cer_relative: errors beyond the fp32 baseline's as a share of those;
    it is of no use where the baseline makes none. token_agreement: share of the token alignment with the
    baseline that is equal.

    references: the fp32 torch baseline's outcomes.
    """
    return [_measure(*line) for line in zip(recordings, references, outcomes, strict=True)]


def measure_with_times(
    folder: Path, recordings: Sequence[Recording], references: Sequence[Outcome], outcomes: Sequence[Outcome]
) -> list[Counts]:
    """Count what `measure` does, and by how many ms tokens move, as (numerator, denominator).

    timestamp_shift_mean, timestamp_shift_max: over the beginnings and ends of those tokens that the baseline has too.
    """
    counts = measure(folder, recordings, references, outcomes)
    return [{**c, **_count_shifts(*pair)} for c, *pair in zip(counts, references, outcomes, strict=True)]


def _count_shifts(reference: Outcome, outcome: Outcome) -> Counts:
    aligned = _align([str(t) for t in reference.tokens], [str(t) for t in outcome.tokens])
    pairs = [
        (chunk.ref_start_idx + n, chunk.hyp_start_idx + n)
        for chunk in aligned.alignments[0]
        if chunk.type == "equal" and reference.times and outcome.times
        for n in range(chunk.ref_end_idx - chunk.ref_start_idx)
    ]
    edges = [
        edge for before, after in pairs for edge in zip(reference.times[before], outcome.times[after], strict=True)
    ]
    shifts = [abs(before - after) for before, after in edges]
    return {
        "timestamp_shift_mean": (sum(shifts), len(shifts)),
        "timestamp_shift_max": (max(shifts, default=0), min(len(shifts), 1)),
    }


def _measure(recording: Recording, reference: Outcome, outcome: Outcome) -> Counts:
    truth, text = normalized(recording.text), normalized(outcome.text)
    characters = _align(list(truth.replace(" ", "")), list(text.replace(" ", "")))
    baseline = _align(list(truth.replace(" ", "")), list(normalized(reference.text).replace(" ", "")))
    tokens = _align([str(t) for t in reference.tokens], [str(t) for t in outcome.tokens])
    return {
        **_rates("cer", characters),
        **_rates("wer", _align(split_words(truth), split_words(text))),
        "cer_relative": (_errors(characters) - _errors(baseline), _errors(baseline)),
        "token_agreement": (tokens.hits, tokens.hits + _errors(tokens)),
    }


@functools.lru_cache(maxsize=2**16)  # recordings are counted again when there are more of them
def normalized(text: str) -> str:
    """Return a text as error rates see it: compatibility forms folded, lower case, no punctuation, single spaces."""
    folded = unicodedata.normalize("NFKC", text).lower()
    return " ".join("".join(c for c in folded if not unicodedata.category(c).startswith("P")).split())


def split_words(text: str) -> list[str]:
    """Split a normalized text into words; a Chinese character is a word of its own."""
    return "".join(f" {c} " if unicodedata.name(c, "").startswith("CJK UNIFIED") else c for c in text).split()


def _align(reference: Sequence[str], hypothesis: Sequence[str]) -> jiwer.WordOutput:
    return _align_texts(" ".join(reference), " ".join(hypothesis))


@functools.lru_cache(maxsize=2**16)  # recordings are counted again when there are more of them
def _align_texts(reference: str, hypothesis: str) -> jiwer.WordOutput:
    return jiwer.process_words(reference, hypothesis)


def _errors(aligned: jiwer.WordOutput) -> int:
    return sum(getattr(aligned, edit) for edit in EDITS)


def _rates(name: str, aligned: jiwer.WordOutput) -> dict[str, tuple[float, float]]:
    length = aligned.hits + aligned.substitutions + aligned.deletions
    apart = {f"{name}_{edit}": (getattr(aligned, edit), length) for edit in EDITS}
    return {name: (_errors(aligned), length), **apart}


# What `reference` keeps


def write_outcomes(folder: Path, mode: str, outcomes: Sequence[Outcome]) -> None:
    """Keep outcomes of one mode for `read_outcomes`."""
    write_json(folder / f"{mode}.json", [asdict(outcome) for outcome in outcomes])


def read_outcomes(folder: Path, mode: str) -> list[Outcome]:
    """Read what `write_outcomes` kept, in the same order."""
    return [Outcome(**fields) for fields in read_json(folder / f"{mode}.json")]


# FunASR's token list


def load_tokenizer(checkpoint: Path, config: dict[str, Any]) -> CharTokenizer:
    """Load FunASR's tokenizer with the checkpoint's token list.

    Raises:
        UserError: tokens.json is missing, or not a list of one string for each of the network's outputs.
    """
    return tokens.tokenizer(tokens.read(checkpoint, config.get("vocab_size")), split_with_space=True)
