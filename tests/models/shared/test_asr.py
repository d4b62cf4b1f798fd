"""Error rates count what the field counts, and the token list is FunASR's or refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stages.core.errors import UserError
from stages.corpora.manifest import Recording
from stages.models.shared import asr
from stages.models.shared.asr import Outcome, normalized, split_words


def ratios(text: str, reference: Outcome, outcome: Outcome) -> dict[str, tuple[float, float]]:
    (counts,) = asr.measure(Path(), [Recording(id="a", text=text, folder=Path())], [reference], [outcome])
    assert counts.keys() == asr.METRICS.keys()
    assert asr.HEADLINE in counts
    return dict(counts)


def test_a_perfect_recognizer_makes_no_error():
    said = Outcome([5, 6], "打开")
    counts = ratios("打开", said, said)
    assert all(numerator == 0 for name, (numerator, _) in counts.items() if name != "token_agreement")
    assert counts["cer"] == (0, 2)
    assert counts["cer_relative"] == (0, 0)
    assert counts["token_agreement"] == (2, 2)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        pytest.param("打开灯", {"cer": 0}, id="same"),
        pytest.param("打关灯", {"cer": 1, "cer_substitutions": 1}, id="substitution"),
        pytest.param("打灯", {"cer": 1, "cer_deletions": 1}, id="deletion"),
        pytest.param("打开开灯", {"cer": 1, "cer_insertions": 1}, id="insertion"),
        pytest.param("", {"cer": 3, "cer_deletions": 3}, id="nothing-said"),
        pytest.param("打 开, 灯。", {"cer": 0}, id="spaces-and-punctuation"),
    ],
)
def test_edits_are_counted_apart(text: str, wanted: dict[str, int]):
    counts = ratios("打开灯", Outcome([], ""), Outcome([], text))
    rates = {f"cer{kind}": 0 for kind in ("_substitutions", "_deletions", "_insertions")} | wanted
    assert {name: counts[name] for name in rates} == {name: (errors, 3) for name, errors in rates.items()}


def test_a_word_is_a_word_or_a_chinese_character():
    assert split_words(normalized("打开 Wi-Fi, please 三十")) == ["打", "开", "wifi", "please", "三", "十"]
    counts = ratios("打开 wifi", Outcome([], ""), Outcome([], "打开 wife"))
    assert counts["wer"] == counts["wer_substitutions"] == (1, 3)
    assert counts["cer"] == (1, 6)


def test_relative_errors_are_those_beyond_the_baseline_s():
    baseline, candidate = Outcome([1, 2, 3], "打关灯"), Outcome([1, 9], "灯")
    counts = ratios("打开灯", baseline, candidate)
    assert counts["cer_relative"] == (1, 1)
    assert counts["token_agreement"] == (1, 3)


def test_a_silent_recording_has_insertions_and_no_length():
    counts = ratios(" ", Outcome([], ""), Outcome([4], "嗯"))
    assert counts["cer"] == counts["cer_insertions"] == (1, 0)
    assert counts["token_agreement"] == (0, 1)


def test_outcomes_are_read_back_as_written(tmp_path: Path):
    outcomes = [Outcome([3, 1], "打开"), Outcome([], "")]
    asr.write_outcomes(tmp_path, "offline", outcomes)
    assert asr.read_outcomes(tmp_path, "offline") == outcomes


def test_the_token_list_is_the_checkpoint_s(tmp_path: Path):
    (tmp_path / "tokens.json").write_text(json.dumps(["<blank>", "打", "<unk>"]))
    tokenizer = asr.load_tokenizer(tmp_path, {})
    assert tokenizer.ids2tokens([1, 2]) == ["打", "<unk>"]
    assert tokenizer.tokens2ids(["打", "开"]) == [1, 2]
    with pytest.raises(UserError, match=r"found 3 tokens, the vocab_size of config\.yaml is 4"):
        asr.load_tokenizer(tmp_path, {"vocab_size": 4})
