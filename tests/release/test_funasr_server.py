"""FunASR's C++ runtime finds in a release what its sources look for, in the form that they read."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from stages.release import funasr_server

WORDS = "jieba_usr_dict"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        pytest.param("abc 一 七\n二 二\n", "abc\t一 七\n二\t二\n", id="spaces"),
        pytest.param("abc\ta b\n二\t二\n", "abc\ta b\n二\t二\n", id="as it has to be"),
        pytest.param("abc\ta b\r\n\r\n二  二 ", "abc\ta b\n二\t二\n", id="Windows' line ends"),
    ],
)
def test_a_word_and_its_tokens_have_a_tab_between_them(tmp_path: Path, text: str, wanted: str):
    (tmp_path / "seg_dict").write_text(text, encoding="utf-8", newline="")
    funasr_server.complete(tmp_path)
    assert (tmp_path / "seg_dict").read_text(encoding="utf-8") == wanted


def test_a_network_of_words_comes_with_jieba(tmp_path: Path):
    (tmp_path / WORDS).write_text("刘医生\n", encoding="utf-8")
    (tmp_path / "config.yaml").write_text("model: CTTransformer\nmodel_conf: {}", encoding="utf-8")
    funasr_server.complete(tmp_path)
    assert (tmp_path / "config.yaml").read_text() == "model: CTTransformer\nmodel_conf: {}\nseg_jieba: true\n"
    words = [line.split(" ") for line in (tmp_path / "jieba.c.dict").read_text(encoding="utf-8").splitlines()]
    assert {len(fields) for fields in words} == {3}  # a word, its weight, its kind
    weights = {word: float(weight) for word, weight, _ in words}
    assert weights["刘医生"] < weights["医生"] < 0  # its own word, and one of jieba's
    assert abs(sum(map(math.exp, weights.values())) - 1) < 1e-6
    start, *moves, begin, end, middle, single = (tmp_path / "jieba.hmm").read_text(encoding="utf-8").splitlines()
    assert [len(line.split()) for line in (start, *moves)] == [4] * 5
    assert all(":" in pair[1:] for line in (begin, end, middle, single) for pair in line.split(",")[:100])
    assert abs(sum(math.exp(float(chance)) for chance in start.split()) - 1) < 1e-6


def test_a_checkpoint_s_own_dictionaries_stay(tmp_path: Path):
    own = {WORDS: "刘医生\n", "jieba.c.dict": "刘 1 n\n", "jieba.hmm": "#\n", "config.yaml": "seg_jieba: false\n"}
    for name, text in own.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    funasr_server.complete(tmp_path)
    assert {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()} == own


def test_what_is_of_characters_gets_none(tmp_path: Path):
    (tmp_path / "config.yaml").write_text("model: CTTransformer\n", encoding="utf-8")
    funasr_server.complete(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]
