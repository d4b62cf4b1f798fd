"""FunASR's punctuation with only its network swapped: splitting, sentence cache and post-processing stay."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from stages.core.graphs import Feeds
from stages.core.parity import LoadedArtifact, Network
from stages.corpora.manifest import Recording
from stages.models.ct_transformer import words
from stages.models.ct_transformer.metrics import NONE, Outcome, split_text
from stages.models.ct_transformer.network import build, load_tokenizer, read_config, realtime_masks
from stages.models.shared import checkpoint

PIECE = 15  # tokens that the realtime kind is given at a time: 3 s of Mandarin at 5 syllables a second

Forward = Callable[..., tuple[torch.Tensor, None]]


def score(folder: Path, artifact: LoadedArtifact, mode: str, recordings: Iterable[Recording]) -> list[Outcome]:  # noqa: ARG001  one mode
    """Take the marks off the recordings' texts and let FunASR put them back with the artifact's network.

    Raises:
        UserError: a line of the data set has no text.
    """
    torch.set_num_threads(1)  # the tensors are small, and other processes have the other cores
    punctuate = load_punctuator(folder, artifact)
    return [punctuate(split_text(recording)[0]) for recording in recordings]


def load_punctuator(folder: Path, artifact: LoadedArtifact) -> Callable[[Sequence[str]], Outcome]:
    """Load FunASR's punctuation as a function of a text's tokens, with the artifact's network in place of its own.

    The realtime kind gets `PIECE` tokens at a time, as voice activity detection cuts running speech: where
    the clock says, not where a sentence ends.
    """
    model, tokenizer = checkpoint.described(build, read_config(folder), folder), load_tokenizer(folder)
    model.punc_forward, model.jieba_usr_dict = _forward(artifact[1]["model"]), words.load_segmenter(folder)

    def infer(tokens: Sequence[str], cache: dict[str, Any]) -> dict[str, Any]:
        results, _ = model.inference([" ".join(tokens)], key=[""], tokenizer=tokenizer, cache=cache, device="cpu")
        found: dict[str, Any] = results[0]
        return found

    def punctuate_whole(tokens: Sequence[str]) -> Outcome:
        found = infer(tokens, {})
        marks = [model.punc_list[i] for i in found["punc_array"]]
        return Outcome(found["text"], words.marks_after(tokens, words.split(tokens, model.jieba_usr_dict), marks))

    def punctuate_pieces(tokens: Sequence[str]) -> Outcome:
        if len(tokens) == 1:
            return Outcome(tokens[0], [])  # its only mark is withheld, and FunASR 1.4 fails on NumPy 2.4
        cache: dict[str, Any] = {}
        pieces = [infer(tokens[start : start + PIECE], cache) for start in range(0, len(tokens), PIECE)]
        text = "".join(found["text"] for found in pieces)
        return Outcome(text, marks_between(tokens, text, set(model.punc_list) - {NONE}))

    return punctuate_pieces if model.with_vad() else punctuate_whole


def marks_between(tokens: Sequence[str], text: str, known: Collection[str]) -> list[str]:
    """Return the `known` mark after each token but the last in what FunASR wrote of them, `_` for none.

    A token may be one that has a mark in it or is one, such as a curly apostrophe.
    """
    marks, rest = list[str](), text
    for token in tokens:
        rest = rest.lstrip(" ").removeprefix(token)
        mark = next((mark for mark in known if rest.startswith(mark)), "")
        rest = rest.removeprefix(mark)
        marks.append(mark or NONE)
    return marks[:-1]


def _forward(network: Network) -> Forward:
    """Make FunASR's `punc_forward` out of a network; it also feeds FunASR's masks where there was a pause."""

    def punc_forward(
        text: torch.Tensor, text_lengths: torch.Tensor, vad_indexes: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, None]:
        feeds: Feeds = {"inputs": text.int().numpy(), "text_lengths": text_lengths.int().numpy()}
        if vad_indexes is not None:
            feeds |= {name: mask.numpy() for name, mask in realtime_masks(text.shape[1], vad_indexes[:1]).items()}
        return torch.from_numpy(network(feeds)["logits"]), None

    return punc_forward
