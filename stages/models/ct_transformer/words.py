"""Words of a text, for the punctuation model that knows words: FunASR's default, `ct-punc`, splits text with jieba.

The checkpoint's own words lie in a file, and come to those of jieba's dictionary. What counts stays the same as of a
model of characters, whose marks may be after each of them: a model of words has none inside a word.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from stages.core.errors import UserError, first_line
from stages.models.ct_transformer.metrics import NONE
from stages.models.shared import checkpoint
from stages.models.shared.tokens import OWN_WORDS

if TYPE_CHECKING:
    from jieba import Tokenizer


def load_segmenter(folder: Path) -> Tokenizer | None:
    """Load jieba with the own words of a checkpoint; None for a checkpoint that has no such file.

    Each gets a dictionary of its own, where FunASR adds the words to the one of the whole process. jieba would read
    its dictionary from a file in the folder for temporary files, which anyone may have put there.

    Raises:
        UserError: the file is not a list of words, or is not there and configuration.json names one.
    """
    path = folder / OWN_WORDS
    if not path.is_file():
        _refuse_absent(folder)
        return None
    with checkpoint.importing_funasr():
        from jieba import Tokenizer

    segmenter = Tokenizer()
    frequencies, segmenter.total = _dictionary()
    segmenter.FREQ = dict(frequencies)
    segmenter.initialized = True
    with path.open("rb") as file:
        try:
            segmenter.load_userdict(file)
        except ValueError as e:
            wanted = "wanted a word in each line of UTF-8, and its frequency behind it where that is known"
            raise UserError(f"{path}: {first_line(e)}; {wanted}") from e
    return segmenter


def _refuse_absent(folder: Path) -> None:
    """Raise UserError if configuration.json names a file of words: without it, a network of words gets characters."""
    place = folder / "configuration.json"
    try:
        named = json.loads(place.read_bytes())["file_path_metas"][OWN_WORDS]
    except (OSError, ValueError, LookupError, TypeError):
        return
    raise UserError(f"{place}: found {OWN_WORDS} {named!r:.60}, and no file {OWN_WORDS} beside it; add it by this name")


@cache
def _dictionary() -> tuple[dict[str, int], int]:
    """Read jieba's dictionary of 350,000 words, which takes half a second."""
    from jieba import Tokenizer

    reader = Tokenizer()
    found: tuple[dict[str, int], int] = reader.gen_pfdict(reader.get_dict_file())
    return found


def split(tokens: Sequence[str], segmenter: Tokenizer | None) -> list[str]:
    """Split a text, given as `read_marks` splits it, into what FunASR looks up in tokens.json."""
    with checkpoint.importing_funasr():
        from funasr.models.ct_transformer.utils import split_words

    words: list[str] = split_words(" ".join(tokens), jieba_usr_dict=segmenter)
    return words


def marks_after(tokens: Sequence[str], words: Sequence[str], marks: Sequence[str]) -> list[str]:
    """Return the mark after each token of a text that FunASR punctuated by words.

    A mark inside a token, such as a number that jieba cuts at its point, counts as one after the token.

    marks: FunASR's, one for each character of a Chinese word and one for another word, of which the last is the word's.
    """
    ends = accumulate(map(len, words))
    last = accumulate(len(word) if "\u0e00" <= word[0] <= "\u9fa5" else 1 for word in words)  # FunASR's range
    marked = {end: marks[position - 1] for end, position in zip(ends, last, strict=True)}
    found = []
    for start, end in pairwise(accumulate(map(len, tokens), initial=0)):
        inside = [marked[place] for place in range(start + 1, end + 1) if marked.get(place, NONE) != NONE]
        found.append(inside[-1] if inside else NONE)
    return found
