"""The list of a checkpoint's tokens: each a string, none twice, `<unk>` among them."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stages.core.errors import UserError
from stages.models.shared.checkpoint import importing_funasr

if TYPE_CHECKING:
    from funasr.tokenizer.char_tokenizer import CharTokenizer

FILE, PLAIN = "tokens.json", "tokens.txt"
OWN_WORDS = "jieba_usr_dict"  # of a checkpoint whose tokens are words: those that jieba does not know
UNKNOWN = "<unk>"
SYMBOL = re.compile(r"<.+>")  # <s> or <|en|>, which is no text
SHOWN = 5


def read(folder: Path, vocabulary: int | None = None, files: Sequence[str] = (FILE,)) -> list[str]:
    """Read the tokens of a checkpoint from the first of `files` that is there.

    vocabulary: how many there must be, where config.yaml says so.

    Raises:
        UserError: there is no such file, or it is not a list of that many different tokens with `<unk>`.
    """
    path = next((folder / name for name in files if (folder / name).is_file()), None)
    if path is None:
        is_plain = (folder / PLAIN).is_file()
        wanted = f"make it a JSON list of the lines of {PLAIN}" if is_plain else "add the checkpoint's own token list"
        raise UserError(f"{folder}: found no {' or '.join(files)}; {wanted}")
    tokens = _parse(path)
    if vocabulary not in {None, len(tokens)}:
        raise UserError(f"{path}: found {len(tokens)} tokens, the vocab_size of config.yaml is {vocabulary}")
    twice = [token for token, count in Counter(tokens).items() if count > 1]
    if twice:
        raise UserError(f"{path}: found {len(twice)} tokens twice ({_shown(twice)}), wanted each once")
    if UNKNOWN not in tokens:
        raise UserError(f"{path}: found no {UNKNOWN} among {len(tokens)} tokens, which stands for all others")
    return tokens


def _parse(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
        tokens = (
            [line.rstrip() for line in text.removesuffix("\n").split("\n")]
            if path.suffix == ".txt"
            else json.loads(text)
        )
    except (OSError, ValueError, RecursionError) as e:
        raise UserError(f"{path} is not a list of tokens: {str(e).partition(chr(10))[0]}") from e
    if not isinstance(tokens, list) or not tokens:
        raise UserError(f"{path}: found {type(tokens).__name__}, wanted a JSON list of the network's tokens")
    others = [i for i, token in enumerate(tokens) if not isinstance(token, str)]
    if others:
        found = type(tokens[others[0]]).__name__
        raise UserError(f"{path}: found {found} at place {others[0]}, wanted strings only in the list of tokens")
    return tokens


def _shown(tokens: Sequence[str]) -> str:
    return ", ".join(repr(token[:20]) for token in tokens[:SHOWN]) + (", ..." if len(tokens) > SHOWN else "")


def tokenizer(tokens: list[str], *, split_with_space: bool = False) -> CharTokenizer:
    """Return FunASR's tokenizer of tokens that `read` gave."""
    with importing_funasr():
        from funasr.tokenizer.char_tokenizer import CharTokenizer

    return CharTokenizer(token_list=tokens, unk_symbol=UNKNOWN, split_with_space=split_with_space)
