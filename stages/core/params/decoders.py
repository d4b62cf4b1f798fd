"""How a pipeline's recognizer chooses its tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from stages.core.params.section import Section, Sha256

Hotword = Annotated[str, Field(pattern=r"\S")]


class GreedyDecoder(Section):
    """The best token of each frame, as FunASR chooses."""

    kind: Literal["greedy"]


class PrefixBeamDecoder(Section):
    """CTC prefix beam search; beam: how many texts are kept from frame to frame; 1 is greedy."""

    kind: Literal["prefix_beam"]
    beam: int = Field(ge=1, le=10_000)


class LanguageModel(Section):
    """An ARPA file of words, with `<unk>`, of which the digest decides; a relative path is the repository's own."""

    path: Path
    sha256: Sha256


class WfstDecoder(Section):
    """A search in a graph of tokens, hotwords and a language model, in Kaldi's decoder.

    All weights are natural logarithms of probability. beam: paths that are worse than the best by more are dropped.
    lm_weight: what the language model's are multiplied with. hotwords: what each is preferred by where it is whole.
    """

    kind: Literal["wfst"]
    beam: float = Field(gt=0, le=1000)
    lm: LanguageModel | None = None
    lm_weight: float = Field(default=0, ge=0, le=100)
    hotwords: dict[Hotword, Annotated[float, Field(gt=0, le=1000)]] = Field(default_factory=dict)


Decoder = Annotated[GreedyDecoder | PrefixBeamDecoder | WfstDecoder, Field(discriminator="kind")]
