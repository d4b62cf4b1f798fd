"""Searches for a pipeline's decoder: what each of their settings changes, in made-up probabilities of few tokens."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from stages import decoding
from stages.core.errors import UserError
from stages.core.files import sha256
from stages.core.params.decoders import LanguageModel, PrefixBeamDecoder, WfstDecoder
from stages.models.shared.search import Floats, Search, Vocabulary

KEY = "pipelines.speech.decoder"
BLANK = 0
VOCABULARY = Vocabulary(["", "谢", "写", "字", "写字", " ", "go", "·"], BLANK)
NUMBERS = {spelling: number for number, spelling in enumerate(VOCABULARY.spellings)} | {"_": BLANK}
UNLIKELY = 1e-6  # of a token that a frame does not name
ARPA = r"""\data\
ngram 1=6
ngram 2=1

\1-grams:
-1 <unk> 0
-99 <s> 0
-1 </s>
-1 谢 0
-1 写 0
-1 写字 0

\2-grams:
-0.1 写 </s>

\end\
"""


def frames(*probabilities: dict[str, float]) -> Floats:
    """Log-probabilities of frames, each a few tokens' probabilities by spelling, `_` the blank."""
    found = np.full((len(probabilities), len(VOCABULARY.spellings)), UNLIKELY, np.float32)
    for row, named in zip(found, probabilities, strict=True):
        row[[NUMBERS[spelling] for spelling in named]] = list(named.values())
    return np.log(found / found.sum(axis=1, keepdims=True))


def text(log_probabilities: Floats, search: Search | None = None) -> str:
    """What a search chooses, or greedy decoding, collapsed as FunASR does."""
    chosen = search(log_probabilities) if search else log_probabilities.argmax(axis=1)
    assert chosen.shape == (len(log_probabilities),)
    best = torch.unique_consecutive(torch.from_numpy(chosen)).tolist()
    return "".join(VOCABULARY.spellings[token] for token in best)


def prefix_beam(beam: int) -> Search:
    return decoding.load(PrefixBeamDecoder(kind="prefix_beam", beam=beam), VOCABULARY, KEY)


def wfst(*, beam: float = 16, vocabulary: Vocabulary = VOCABULARY, **settings: object) -> Search:
    return decoding.load(WfstDecoder.model_validate({"kind": "wfst", "beam": beam, **settings}), vocabulary, KEY)


@pytest.fixture
def lm(tmp_path: Path) -> LanguageModel:
    (tmp_path / "words.arpa").write_text(ARPA, encoding="utf-8")
    return LanguageModel(path=tmp_path / "words.arpa", sha256=sha256(tmp_path / "words.arpa"))


AMBIGUOUS = frames({"_": 0.9}, {"谢": 0.6, "写": 0.4}, {"_": 0.9})


def log_likelihood(log_probabilities: Floats, found: str) -> float:
    """Of a text of single characters, all its alignments together."""
    target = torch.tensor([[NUMBERS[c] for c in found]])
    lengths = torch.tensor([len(log_probabilities)]), torch.tensor([len(found)])
    return -float(
        torch.nn.functional.ctc_loss(torch.tensor(log_probabilities)[:, None], target, *lengths, reduction="sum")
    )


def peaked(seed: int) -> Floats:
    """Frames such as a trained network gives: most of the probability is one token's or two tokens'."""
    logits = np.random.default_rng(seed).normal(scale=4, size=(30, len(VOCABULARY.spellings)))
    logits[:, [NUMBERS["写字"], NUMBERS["go"]]] = -20
    return torch.log_softmax(torch.from_numpy(logits.astype(np.float32)), dim=-1).numpy()


def test_a_wider_beam_finds_the_text_of_which_all_alignments_together_are_more_probable():
    both = frames({"_": 0.6, "谢": 0.4}, {"_": 0.6, "谢": 0.4})
    assert text(both) == text(both, prefix_beam(1)) == ""
    assert text(both, prefix_beam(2)) == "谢"


def test_a_wider_beam_is_at_least_as_probable():
    searches = [prefix_beam(beam) for beam in (1, 8, 64)]
    found = np.array([[log_likelihood(one, text(one, s)) for s in searches] for one in map(peaked, range(40))])
    assert np.all(np.diff(found) > -1e-3)
    assert np.all(np.diff(found.sum(axis=0)) > 1)


def test_a_beam_of_one_is_greedy_decoding():
    for one in map(peaked, range(40)):
        assert text(one, prefix_beam(1)) == text(one)


@pytest.mark.parametrize("search", [pytest.param(prefix_beam(5), id="beam"), pytest.param(wfst(), id="wfst")])
def test_what_is_certain_is_what_greedy_decoding_finds(search: Search):
    certain = frames(*({c: 1.0} for c in "__谢谢_谢写__字字"))
    assert text(certain) == text(certain, search) == "谢谢写字"
    assert text(frames({"_": 1}, {"_": 1}), search) == ""


def test_without_hotwords_and_model_a_graph_changes_nothing():
    for one in map(peaked, range(40)):
        assert text(one, wfst()) == text(one)


def test_a_hotword_that_greedy_decoding_misses_is_found():
    assert text(AMBIGUOUS) == text(AMBIGUOUS, wfst(hotwords={"写": 0.3})) == "谢"  # ln(0.6 / 0.4) is 0.405
    assert text(AMBIGUOUS, wfst(hotwords={"写": 0.5})) == "写"


def test_a_hotword_is_found_in_any_tokens_and_where_it_is_whole():
    whole = frames({"谢": 0.9, "写字": 0.1})
    parted = frames({"谢": 0.6, "写": 0.4}, {"谢": 0.5, "字": 0.5})
    half = frames({"谢": 0.6, "写": 0.4}, {"谢": 1})
    search = wfst(hotwords={"写字": 3})
    assert [text(one, search) for one in (whole, parted, half)] == ["写字", "写字", "谢"]


def test_a_hotword_does_not_double_what_is_said_once():
    once, twice = frames({"谢": 1}, {"谢": 1}), frames({"谢": 1}, {"谢": 0.9, "_": 0.1}, {"谢": 1})
    search = wfst(hotwords={"谢谢": 5})
    assert text(once, search) == "谢"
    assert text(twice, search) == "谢谢"


def test_a_recognizer_without_blanks_has_a_token_in_each_frame(lm: LanguageModel):
    tokens = Vocabulary([s.strip() for s in VOCABULARY.spellings], blank=None)
    twice = frames({"谢": 1}, {"谢": 0.6, "写": 0.4}, {"写字": 1}, {"go": 1})
    for found, hotwords in (("谢谢写字go", {}), ("谢写写字go", {"写 写字 go": 1}), ("谢写写字go", {"写写": 1})):
        chosen = wfst(vocabulary=tokens, hotwords=hotwords)(twice)
        assert "".join(tokens.spellings[token] for token in chosen) == found
    with pytest.raises(UserError, match=rf"{KEY}\.kind: found prefix_beam, wanted another decoder"):
        decoding.load(PrefixBeamDecoder(kind="prefix_beam", beam=5), tokens, KEY)
    last = wfst(vocabulary=tokens, lm=lm, lm_weight=0.5)(frames({"谢": 0.6, "写": 0.4}))
    assert [tokens.spellings[token] for token in last] == ["写"]


def test_what_is_all_alike_is_decoded_too():
    many = Vocabulary(["", *map(chr, range(0x4E00, 0x4E00 + 20_000))], blank=None)
    alike = np.full((2, 20_001), -np.log(20_001), np.float32)
    alike[:, 7] += 0.01
    assert wfst(vocabulary=many)(alike).tolist() == [7, 7]


def test_a_narrow_beam_drops_what_a_hotword_needs():
    late = frames({"谢": 0.99, "写": 0.01}, {"字": 1})
    assert text(late, wfst(hotwords={"写字": 8})) == "写字"
    assert text(late, wfst(hotwords={"写字": 8}, beam=0.1)) == text(late) == "谢字"


def test_the_model_s_weight_flips_an_ambiguous_word(lm: LanguageModel):
    # 写 ends a sentence with 10 ** -0.1, 谢 with 10 ** -1 and 0 to back off: 2.07 nats.
    assert text(AMBIGUOUS, wfst(lm=lm, lm_weight=0)) == text(AMBIGUOUS, wfst(lm=lm, lm_weight=0.1)) == "谢"
    assert text(AMBIGUOUS, wfst(lm=lm, lm_weight=0.5)) == "写"


def test_words_that_the_model_lacks_can_be_said(lm: LanguageModel):
    unknown = frames({"go": 1}, {" ": 1}, {"字": 1}, {"写": 1})
    assert text(unknown, wfst(lm=lm, lm_weight=0.5)) == "go 字写"


def test_a_hotword_that_no_token_spells_is_refused():
    with pytest.raises(UserError, match=rf"{KEY}\.hotwords: found 'Go', wanted characters .* not \['G'\]"):
        wfst(hotwords={"Go": 1})


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        pytest.param(r"\data", "data", r"found no ARPA file .*data", id="other"),
        pytest.param("-0.1 写", "-x 写", r"found no ARPA file .* invalid n-gram logprob '-x'", id="broken"),
        pytest.param("<unk>", "字", "found no <unk>, wanted a model of open vocabulary", id="closed"),
    ],
)
def test_a_model_that_cannot_be_used_is_refused(lm: LanguageModel, old: str, new: str, said: str):
    lm.path.write_text(ARPA.replace(old, new), encoding="utf-8")
    changed = LanguageModel(path=lm.path, sha256=sha256(lm.path))
    with pytest.raises(UserError, match=rf"{KEY}\.lm\.path: .*words\.arpa: {said}"):
        wfst(lm=changed, lm_weight=1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param(gzip.compress, "it is no text in UTF-8; unpack it where it is compressed", id="compressed"),
        pytest.param(lambda text: text.decode().encode("gbk"), "found words that are not UTF-8", id="GBK"),
    ],
)
def test_a_model_of_another_encoding_is_refused(lm: LanguageModel, change: Callable[[bytes], bytes], said: str):
    lm.path.write_bytes(change(ARPA.encode()))
    with pytest.raises(UserError, match=said):
        wfst(lm=LanguageModel(path=lm.path, sha256=sha256(lm.path)), lm_weight=1)


def test_a_word_may_be_a_wide_space(lm: LanguageModel):
    lm.path.write_text(ARPA.replace("-1 写字 0", "-1 \u3000 0"), encoding="utf-8")
    search = wfst(lm=LanguageModel(path=lm.path, sha256=sha256(lm.path)), lm_weight=0.5)
    assert text(frames({"谢": 0.9}), search) == "谢"


def test_a_model_that_is_missing_is_named(lm: LanguageModel):
    lm.path.unlink()
    with pytest.raises(UserError, match=rf"{KEY}\.lm\.path: .*words\.arpa: found no such file, wanted .* {lm.sha256}"):
        wfst(lm=lm, lm_weight=1)


@pytest.mark.parametrize("search", [pytest.param(prefix_beam(5), id="beam"), pytest.param(wfst(), id="wfst")])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_a_broken_network_gives_is_decoded_greedily(search: Search, value: float):
    broken = frames({"谢": 1}, {"写": 1})
    broken[1, NUMBERS["字"]] = value
    np.testing.assert_array_equal(search(broken), broken.argmax(axis=1))


def test_another_file_than_the_pinned_one_is_refused(lm: LanguageModel):
    lm.path.write_text(ARPA + "\n", encoding="utf-8")
    with pytest.raises(UserError, match=rf"{KEY}\.lm\.path: .*found sha256 \w+ .* wanted {lm.sha256}"):
        wfst(lm=lm, lm_weight=1)
