"""A token list that FunASR could not use, or would use wrongly, is named in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stages.core.errors import UserError
from stages.models.shared import tokens

GOOD = ["<blank>", "<s>", "a", "b", "<unk>"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param(None, r"found no tokens\.json", id="missing"),
        pytest.param("{}", "found dict, wanted a JSON list", id="mapping"),
        pytest.param("[]", "found list, wanted a JSON list of", id="empty"),
        pytest.param("[1, 2]", "found int at place 0, wanted strings only", id="numbers"),
        pytest.param(json.dumps([*GOOD, None]), "found NoneType at place 5", id="null"),
        pytest.param(json.dumps([*GOOD[:-1], "c"]), "found no <unk> among 5 tokens", id="no-unk"),
        pytest.param(json.dumps([*GOOD[1:], "a"]), r"found 1 tokens twice \('a'\)", id="twice"),
        pytest.param(json.dumps([*GOOD, "c"]), "found 6 tokens, the vocab_size of config.yaml is 5", id="count"),
        pytest.param("[" * 100_000, "is not a list of tokens", id="deep"),
        pytest.param("[" + "1" * 5000 + "]", "is not a list of tokens", id="digits"),
        pytest.param(b"\xff\xfe\x00", "is not a list of tokens", id="not-utf8"),
        pytest.param("<html>", "is not a list of tokens", id="web-page"),
    ],
)
def test_a_token_list_of_another_kind_is_refused(tmp_path: Path, content: str | bytes | None, said: str):
    if content is not None:
        (tmp_path / "tokens.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=said) as e:
        tokens.read(tmp_path, 5)
    assert "\n" not in str(e.value)


def test_a_list_in_the_form_that_funasr_trains_with_is_named(tmp_path: Path):
    (tmp_path / "tokens.txt").write_text("a\n<unk>\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"found no tokens\.json; make it a JSON list of the lines of tokens\.txt"):
        tokens.read(tmp_path)


def test_the_text_form_has_a_token_a_line(tmp_path: Path):
    (tmp_path / "tokens.txt").write_text("生气/angry\n<unk>\n", encoding="utf-8")
    assert tokens.read(tmp_path, 2, ("tokens.txt", "tokens.json")) == ["生气/angry", "<unk>"]
