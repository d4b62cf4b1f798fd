"""A punctuation model of words: how its text is split, where its marks are, and what is refused."""

# ruff: noqa: RUF001  the marks are Chinese

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import jieba
import pytest

from stages.core.errors import UserError
from stages.core.graphs import Feeds
from stages.corpora.manifest import Recording
from stages.models import ct_transformer
from stages.models.ct_transformer import read_marks, words
from stages.models.shared.checkpoint import torch_artifact
from stages.models.shared.tokens import OWN_WORDS
from tests import workspace
from zoo import replicas

TEXT = "孙女士，你3.14号去公司吗？我和tom买苹果。"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The replica of FunASR's `ct-punc`, whose own words are 孙女士 and 去公司 among others."""
    folder = tmp_path_factory.mktemp("ct_punc")
    replicas.make("ct_punc", folder, tiny=True)
    return folder


def test_a_checkpoint_s_own_words_are_split_off_and_stay_its_own(checkpoint: Path):
    tokens = read_marks(TEXT)[0]
    found = words.split(tokens, words.load_segmenter(checkpoint))
    assert found == ["孙女士", "你", "3", ".", "14", "号", "去公司", "吗", "我", "和", "tom", "买", "苹果"]
    assert "孙女士" not in jieba.lcut("".join(tokens), HMM=False)


def test_without_words_a_text_is_split_as_its_marks_are(tmp_path: Path):
    tokens = read_marks(TEXT)[0]
    assert words.load_segmenter(tmp_path) is None
    assert words.split(tokens, None) == tokens


def test_a_mark_is_after_the_token_in_which_its_word_ends():
    split = ["孙女士", "3", ".", "14", "T恤", "tom"]
    marks = ["_", "_", "，", "_", "、", "_", "。", "？"]  # as FunASR: one for each character of the first, else one
    found = words.marks_after(["孙", "女", "士", "3.14", "T", "恤", "tom"], split, marks)
    assert found == ["_", "_", "，", "、", "_", "。", "？"]


def test_each_token_gets_funasr_s_mark(checkpoint: Path):
    line = Recording(folder=Path(), id="one", text=TEXT.replace("3.14号", ""))
    artifact = torch_artifact(ct_transformer, ct_transformer.load(checkpoint))
    [outcome] = ct_transformer.score(checkpoint, artifact, "text", [line])
    tokens = read_marks(line.text)[0]
    assert len(outcome.marks) == len(tokens)
    inside = [tokens.index(character) for character in "孙女去苹"]
    assert {outcome.marks[place] for place in inside} == {"_"}
    wide = outcome.text.translate(str.maketrans(",.?", "，。？"))  # FunASR writes ASCII marks after ASCII words
    shown = [mark for mark in wide if mark in "，。？、"]
    assert [mark for mark in outcome.marks if mark != "_"] == shown != []


def test_pruning_calibrates_with_words(checkpoint: Path):
    settings = workspace.PRUNE.model_copy(update={"variations": 0})
    line = Recording(folder=Path(), id="one", text="孙女士去公司。" * ct_transformer.pruning.WINDOW)
    stream = ct_transformer.calibration(checkpoint, [line], settings)
    known = ct_transformer.network.load_tokenizer(checkpoint)
    assert stream[:2].tolist() == known.encode(["孙女士", "去公司"])


def test_sherpa_onnx_which_splits_into_characters_gets_no_metadata(checkpoint: Path):
    assert ct_transformer.metadata(checkpoint) == {}


@pytest.mark.parametrize(
    "content",
    [pytest.param(b"\xd6\xd0\xce\xc4 3\n", id="GBK"), pytest.param(b"word " + b"9" * 5000, id="frequency")],
)
def test_a_list_of_words_that_is_none_is_refused(tmp_path: Path, content: bytes):
    (tmp_path / OWN_WORDS).write_bytes(content)
    with pytest.raises(UserError, match=r"jieba_usr_dict: .* wanted a word in each line of UTF-8"):
        words.load_segmenter(tmp_path)


def test_words_that_are_named_and_not_there_are_missed(checkpoint: Path, tmp_path: Path):
    shutil.copy(checkpoint / "configuration.json", tmp_path)
    with pytest.raises(UserError, match="found jieba_usr_dict 'jieba_usr_dict', and no file jieba_usr_dict beside it"):
        words.load_segmenter(tmp_path)


def test_embeddings_are_looked_up_by_word(checkpoint: Path):
    model = ct_transformer.load(checkpoint)
    seen: list[Any] = []
    graph_set, networks = torch_artifact(ct_transformer, model)
    run = networks["model"]

    def watched(feeds: Feeds) -> Feeds:
        seen.append(feeds["inputs"])
        return run(feeds)

    networks["model"] = watched
    ct_transformer.load_punctuator(checkpoint, (graph_set, networks))(list("孙女士去公司"))
    known = ct_transformer.network.load_tokenizer(checkpoint)
    assert seen[0].tolist() == [known.encode(["孙女士", "去公司"])]
