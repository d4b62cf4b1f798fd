"""What FunASR's C++ runtime reads of a checkpoint's files in another form than its Python, or beside them.

As its sources have it (`runtime/onnxruntime/src` of FunASR 1.4.3): seg_dict.cpp splits a line at its tab; tokenizer.cpp
cuts words with jieba where config.yaml says `seg_jieba`, by a compiled dictionary: it has logarithms of probabilities
where jieba's own has counts, and the checkpoint's words among the others.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from stages.core.files import write_text
from stages.models.shared import tokens

if TYPE_CHECKING:
    from jieba import Tokenizer

SEGMENTATION = "seg_dict"
CONFIG, USES_JIEBA = "config.yaml", "seg_jieba"
DICTIONARY, HIDDEN_MARKOV = "jieba.c.dict", "jieba.hmm"
STATES = "BEMS"  # of a character: it begins a word, ends it, is in its middle, is one by itself
NEVER = -3.14e100  # as jieba writes the logarithm of zero


def complete(folder: Path) -> None:
    """Write the files of a release's folder as the C++ runtime reads them; FunASR's Python reads these as well."""
    segmentation = folder / SEGMENTATION
    if segmentation.is_file():
        segmentation.write_bytes(with_tabs(segmentation.read_bytes()))
    if (folder / tokens.OWN_WORDS).is_file():
        from stages.models.ct_transformer import words  # which needs torch: nobody waits for it who checks a release

        if segmenter := words.load_segmenter(folder):
            _add_jieba(folder, segmenter)


def with_tabs(text: bytes) -> bytes:
    """Return a dictionary of words and their tokens, in whatever encoding, with a tab behind each word."""
    lines = (line.strip().split(maxsplit=1) for line in text.split(b"\n"))
    return b"".join(b"\t".join(fields) + b"\n" for fields in lines if fields)


def _add_jieba(folder: Path, segmenter: Tokenizer) -> None:
    """Add jieba's dictionaries where the checkpoint has none, and say in config.yaml that its tokens are words."""
    config = (folder / CONFIG).read_text(encoding="utf-8")
    if not any(line.startswith(f"{USES_JIEBA}:") for line in config.splitlines()):
        write_text(folder / CONFIG, f"{config.rstrip()}\n{USES_JIEBA}: true\n")
    if not (folder / DICTIONARY).is_file():
        write_text(folder / DICTIONARY, "".join(f"{line}\n" for line in _dictionary(segmenter)))
    if not (folder / HIDDEN_MARKOV).is_file():
        write_text(folder / HIDDEN_MARKOV, "".join(f"{line}\n" for line in _hidden_markov()))


def _dictionary(segmenter: Tokenizer) -> Iterator[str]:
    """Yield a line of each word: the logarithm of its probability and a kind, which nobody asks for."""
    for word, count in segmenter.FREQ.items():
        if count:  # else it is the beginning of one
            yield f"{word} {math.log(count / segmenter.total)} x"


def _hidden_markov() -> Iterator[str]:
    """Yield the lines of jieba's model of words that no dictionary has: of a start, of a transition, of a character."""
    from jieba.finalseg import prob_emit, prob_start, prob_trans

    yield " ".join(str(prob_start.P[state]) for state in STATES)
    for state in STATES:
        yield " ".join(str(prob_trans.P[state].get(following, NEVER)) for following in STATES)
    for state in STATES:
        yield ",".join(f"{character}:{chance}" for character, chance in prob_emit.P[state].items())
