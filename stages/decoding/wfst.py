"""A search in a weighted graph of tokens, hotwords and a language model, in Kaldi's decoder.

Mohri, Pereira and Riley, "Speech recognition with weighted finite-state transducers", 2008. The graph composes three:
CTC's tokens to their characters, characters to themselves with what hotwords are preferred by, and characters to words
with their n-grams. On characters it does not matter into which tokens a word falls apart. Spaces are free. A token that
is likely in no frame of a recording is left out, so the first graph is made anew for each.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.core.errors import UserError
from stages.core.files import check_sha256
from stages.core.params.decoders import LanguageModel, WfstDecoder
from stages.decoding import choose_likely
from stages.models.shared.search import Floats, Search, Vocabulary

EPSILON, SPACE, UNKNOWN, BACKOFF = 0, " ", "<unk>", "#backoff"
UNREADABLE = "it is no text in UTF-8; unpack it where it is compressed"
NOT_SPOKEN = {"<eps>", "<s>", "</s>", BACKOFF}

Arc = tuple[int, int, int, int, float]  # from, to, what it reads, what it writes, cost
Symbols = Mapping[str, int]


def load(decoder: WfstDecoder, vocabulary: Vocabulary, key: str) -> Search:
    """Load the search as a function of log-probabilities (frames, vocabulary): the token of each frame.

    Raises:
        UserError: no token spells a hotword, or the language model is not the pinned one or not of open vocabulary.
    """
    from kaldi_decoder import DecodableCtc, FasterDecoder, FasterDecoderOptions
    from kaldifst import get_linear_symbol_sequence

    characters = {c: n for n, c in enumerate(sorted({SPACE, *"".join(vocabulary.spellings)}), 1)}
    hotwords = {SPACE.join(word.split()): weight for word, weight in decoder.hotwords.items()}
    _check_spelled(hotwords, characters, key)
    lm = _read_language_model(decoder.lm, decoder.lm_weight, characters, key) if decoder.lm else None
    options = FasterDecoderOptions(beam=decoder.beam, min_active=1)  # else the 20 best paths stay whatever the beam

    def search(log_probabilities: Floats) -> NDArray[np.int64]:
        tokens = choose_likely(log_probabilities, vocabulary.blank).tolist()
        spelled = {token: [characters[c] for c in vocabulary.spellings[token]] or [EPSILON] for token in tokens}
        graph = _compose(_spell(spelled, vocabulary.blank), _prefer(hotwords, characters, spelled))
        graph = graph if lm is None else _compose(graph, lm)
        kaldi = FasterDecoder(graph, options)
        kaldi.decode(DecodableCtc(np.ascontiguousarray(log_probabilities)))
        _, best = kaldi.get_best_path()
        _, frames, _, _ = get_linear_symbol_sequence(best)
        return np.array(frames, np.int64) - 1

    return search


def _spell(spelled: Mapping[int, Sequence[int]], blank: int | None) -> Any:
    """Make the graph from the tokens of frames, counted from 1, to their characters."""
    if blank is not None:
        return _compile(_spell_ctc(spelled, blank + 1), finals=range(len(spelled) + 1))
    arcs, free = list[Arc](), 1
    for token, symbols in spelled.items():
        states = [0, *range(free, free + len(symbols) - 1), 0]
        free += len(symbols) - 1
        read = [token + 1, *[EPSILON] * (len(symbols) - 1)]
        arcs += zip(states, states[1:], read, symbols, [0] * len(symbols), strict=False)
    return _compile(arcs, finals=[0])


def _spell_ctc(spelled: Mapping[int, Sequence[int]], blank: int) -> Iterator[Arc]:
    """Yield the arcs from CTC's tokens to their characters.

    State 0 is before all and after a blank. A token has a state in which it lasts, and others for the characters of its
    spelling. It may follow itself after a blank only: from where the n-th lasts, one chain of states leads to the
    tokens after the n-th and another to those before it.
    """
    count = len(spelled)
    free = 3 * count + 1
    yield 0, 0, blank, EPSILON, 0
    if spelled:
        yield 0, count + 1, EPSILON, EPSILON, 0
    for n, (token, (first, *others)) in enumerate(spelled.items(), 1):
        after, before = count + n, 2 * count + n
        if n < count:
            yield from ((state, after + 1, EPSILON, EPSILON, 0) for state in (n, after))
        if n > 1:
            yield from ((state, before - 1, EPSILON, EPSILON, 0) for state in (n, before))
        states = [*range(free, free + len(others)), n]
        free += len(others)
        yield from ((state, states[0], token + 1, first, 0) for state in (after, before))
        yield from ((a, b, EPSILON, c, 0) for a, b, c in zip(states, states[1:], others, strict=False))
        yield from ((n, n, token + 1, EPSILON, 0), (n, 0, blank, EPSILON, 0))


def _check_spelled(hotwords: Iterable[str], characters: Symbols, key: str) -> None:
    """Raise UserError if no token spells a character of a hotword, which would never be found."""
    for word in hotwords:
        unknown = sorted(set(word) - set(characters))
        if unknown:
            raise UserError(f"{key}.hotwords: found {word!r}, wanted characters that the tokens have; not {unknown}")


def _prefer(hotwords: Mapping[str, float], characters: Symbols, spelled: Mapping[int, Sequence[int]]) -> Any:
    """Make the graph that accepts any characters, and again each hotword, at a cost below 0 in equal parts.

    Hotwords that the tokens in `spelled` cannot spell are left out: a list may have thousands.
    """
    possible = {characters[SPACE], *(symbol for symbols in spelled.values() for symbol in symbols)}
    arcs: list[Arc] = [(0, 0, symbol, symbol, 0) for symbol in characters.values()]
    free = 1
    for word, weight in hotwords.items():
        symbols = [characters[c] for c in word]
        if not possible.issuperset(symbols):
            continue
        states = [0, *range(free, free + len(word) - 1), 0]
        free += len(word) - 1
        for a, b, symbol in zip(states, states[1:], symbols, strict=False):
            read = {symbol, EPSILON} if symbol == characters[SPACE] else {symbol}  # not every vocabulary has a space
            arcs += [(a, b, each, each, -weight / len(word)) for each in read]
    return _compile(arcs, finals=[0])


def _read_language_model(lm: LanguageModel, weight: float, characters: Symbols, key: str) -> Any:
    """Read an ARPA file as a graph of characters, whose costs are the words' times `weight`."""
    where = f"{key}.lm.path: {lm.path}"
    if not lm.path.is_file():
        raise UserError(f"{where}: found no such file, wanted an ARPA file with sha256 {lm.sha256}")
    check_sha256(lm.path, lm.sha256, where)
    with TemporaryDirectory() as folder:
        table = Path(folder) / "words.txt"
        lines = _read_arpa(lm.path, table, where)
        words = _read_words(table, where)
    if UNKNOWN not in words:
        raise UserError(f"{where}: found no {UNKNOWN}, wanted a model of open vocabulary, which has one")
    lexicon = _compile(_lexicon(words, characters), finals=[0])
    return _compose(lexicon, _weigh(lines, weight, words[BACKOFF]))


def _read_arpa(path: Path, table: Path, where: str) -> list[str]:
    """Return an ARPA file as OpenFst's text, its words' numbers written to `table`.

    It is read in a process of its own, because kaldilm ends the one that it is in where a file is broken.
    """
    settings = [f"--disambig-symbol={BACKOFF}", f"--write-symbol-table={table}"]
    command = [sys.executable, "-m", "kaldilm", *settings, str(path)]
    run = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", errors="replace", check=False)
    if run.returncode:
        why = next((line for line in run.stderr.splitlines() if line.startswith("[E]")), "kaldilm gave no reason")
        why = UNREADABLE if "\ufffd" in why else why.removeprefix("[E]").strip()
        raise UserError(f"{where}: found no ARPA file that kaldilm reads: {why}")
    return run.stdout.splitlines()


def _read_words(table: Path, where: str) -> dict[str, int]:
    """Read the number of each word; a word may be a space of another kind than ASCII's."""
    try:
        lines = table.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as e:
        raise UserError(f"{where}: found words that are not UTF-8, wanted an ARPA file in UTF-8") from e
    pairs = (line.replace("\t", SPACE).rpartition(SPACE) for line in lines)
    return {word.strip(SPACE): int(number) for word, _, number in pairs}


def _lexicon(words: Symbols, characters: Symbols) -> Iterator[Arc]:
    """Yield the arcs from characters to the words that they spell; any of them may be a word that is not known."""
    free = 1
    yield (0, 0, characters[SPACE], EPSILON, 0)
    yield from ((0, 0, symbol, words[UNKNOWN], 0) for c, symbol in characters.items() if c != SPACE)
    for word, number in words.items():
        if word in {*NOT_SPOKEN, UNKNOWN} or not set(word) <= set(characters):
            continue
        states = [0, *range(free, free + len(word) - 1), 0]
        free += len(word) - 1
        for place, c in enumerate(word):
            yield states[place], states[place + 1], characters[c], number if place == 0 else EPSILON, 0


def _weigh(lines: Iterable[str], weight: float, backoff: int) -> Any:
    """Make the graph of OpenFst's text of n-grams, with costs times `weight`, in which nothing is read to back off."""
    from kaldifst import compile as compile_text

    weighed = []
    for fields in map(str.split, lines):
        labels, cost = (fields[:4], fields[4:]) if len(fields) > 2 else (fields[:1], fields[1:])
        labels[2:] = [str(EPSILON) if label == str(backoff) else label for label in labels[2:]]
        weighed.append(" ".join([*labels, *(str(weight * float(number)) for number in cost)]))
    return compile_text("\n".join(weighed))


def _compile(arcs: Iterable[Arc], finals: Iterable[int]) -> Any:
    """Make a graph of arcs, of which the first leaves the first state."""
    from kaldifst import compile as compile_text

    return compile_text("\n".join([*(" ".join(map(str, arc)) for arc in arcs), *map(str, finals)]))


def _compose(first: Any, second: Any) -> Any:
    """Compose two graphs."""
    from kaldifst import arcsort, compose

    arcsort(first, "olabel")
    arcsort(second, "ilabel")
    return compose(first, second)
