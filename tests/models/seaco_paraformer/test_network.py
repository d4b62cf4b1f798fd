"""The modules of the graphs say what FunASR's own torch network says with a list of hotwords."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from stages.core.errors import UserError
from stages.models import paraformer, seaco_paraformer
from tests.models.paraformers import NO_BIAS, SEACO, features, make


@pytest.fixture(scope="module")
def hotwords(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("hotwords") / "checkpoint", seaco_paraformer, SEACO)


def test_a_checkpoint_with_hotwords_is_none_of_paraformer(hotwords: Path):
    wanted = (
        r"model: found 'SeacoParaformer', wanted Paraformer or BiCif.*paraformer knows; it is of the family seaco_paraf"
    )
    with pytest.raises(UserError, match=wanted):
        paraformer.load(hotwords)


@pytest.mark.parametrize(("lengths", "words"), [([80], 1), ([80], 50), ([80], 51), ([80], 70), ([80, 50], 3)])
def test_hotwords_are_heard_as_funasr_hears_them(hotwords: Path, lengths: list[int], words: int):
    model = seaco_paraformer.load(hotwords)
    speech, speech_lengths = features(lengths)
    rng = np.random.default_rng(words)
    numbers = rng.permutation(10_000)[: words - 1]  # no word twice: which of two equals stays is a matter of rounding
    word_list = [[3 + int(digit) for digit in str(number)] for number in numbers] + [[1]]
    padded = torch.zeros(words, seaco_paraformer.network.HOTWORD_TOKENS, dtype=torch.int32)
    for row, word in zip(padded, word_list, strict=True):
        row[: len(word)] = torch.tensor(word)
    modules = {name: module.eval() for name, module in seaco_paraformer.export_modules(model).items()}
    with torch.no_grad():
        model.hotword_output_layer.bias[NO_BIAS] = 0.5  # so that some tokens are hotwords' and some are not
        (embedded,) = modules["bias_encoder"](padded)
        last = torch.stack([embedded[len(word) - 1, i] for i, word in enumerate(word_list)])
        found = modules["model"](speech, speech_lengths, last.repeat(len(lengths), 1, 1))
        for row, length in enumerate(lengths):  # FunASR's own lets padding into a row of a batch
            alone = speech[row : row + 1, :length], speech_lengths[row : row + 1]
            encoded, _ = model.encode(*alone)
            embeds, token_num, _, _ = model.calc_predictor(encoded, alone[1])
            wanted = model._seaco_decode_with_ASF(encoded, alone[1], embeds, token_num.long(), hw_list=word_list)
            plainly, _ = model.cal_decoder_with_predictor(encoded, alone[1], embeds, token_num.long())
            _, _, weights, peaks = model.calc_predictor_timestamp(encoded, alone[1], token_num)
            biased = (wanted != plainly).any(dim=-1)
            assert biased.any()
            assert not biased.all()
            assert found[1][row] == token_num.item()
            for ours, theirs in zip((found[0], *found[2:]), (wanted, weights, peaks), strict=True):
                torch.testing.assert_close(ours[row, : theirs.shape[1]], theirs[0], atol=1e-4, rtol=0)
