"""config.yaml of CT-Transformer, of a whole text and of one that still grows."""

# ruff: noqa: RUF001  the marks are Chinese

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from stages.models.shared.schema import Clash, Config, Index, Section, Share, Width
from stages.models.shared.schema_parts import SanmEncoder, Tokenizer, within

NEEDED_MARKS = ("_", "，", "。", "？", "、")  # FunASR's own code asks for them by name
Marks = Annotated[list[str], Field(min_length=1, max_length=1000)]


class TextEncoder(SanmEncoder):
    """FunASR's SANMEncoder and SANMVadEncoder over embeddings of tokens."""

    input_size: Width


class Punctuation(Section):
    """The embedding, the last layer and the marks. `encoder` and its like belong one level up."""

    punc_list: Marks
    punc_weight: list[Annotated[float, Field(ge=0, le=1e6)]] | None = None
    embed_unit: Width = 128
    att_unit: Width = 256
    dropout_rate: Share = 0.5
    ignore_id: Index = -1
    sos: Index = 1
    eos: Index = 2
    sentence_end_id: Annotated[int, Field(ge=0, le=999)] = 3

    def clashes(self) -> Iterator[Clash]:
        """Give a list of marks that FunASR cannot use."""
        missing, marks = [mark for mark in NEEDED_MARKS if mark not in self.punc_list], len(self.punc_list)
        if missing:
            yield Clash("punc_list", self.punc_list, f"one with {' '.join(missing)}, which FunASR's own code needs")
        if len(set(self.punc_list)) < marks:
            yield Clash("punc_list", self.punc_list, "every mark once")
        if self.punc_weight is not None and len(self.punc_weight) != marks:
            yield Clash("punc_weight", self.punc_weight, f"one number for each of the {marks} marks of punc_list")
        if self.sentence_end_id >= marks:
            yield Clash("sentence_end_id", self.sentence_end_id, f"below {marks}, the number of marks in punc_list")


class Punctuator(Config):
    """What both kinds have."""

    model_conf: Punctuation
    encoder_conf: TextEncoder
    tokenizer: Literal["CharTokenizer"] | None = None
    tokenizer_conf: Tokenizer | None = None

    def clashes(self) -> Iterator[Clash]:
        """Give parts that do not fit each other."""
        yield from super().clashes()
        conf, encoder = self.model_conf, self.encoder_conf
        yield from within(conf.clashes(), "model_conf")
        yield from within(encoder.clashes(), "encoder_conf")
        if conf.embed_unit != encoder.input_size:
            yield Clash("model_conf.embed_unit", conf.embed_unit, f"encoder_conf.input_size, {encoder.input_size}")
        if conf.att_unit != encoder.output_size:
            yield Clash("model_conf.att_unit", conf.att_unit, f"encoder_conf.output_size, {encoder.output_size}")
        if encoder.input_size % 2:
            yield Clash("encoder_conf.input_size", encoder.input_size, "an even number, as positions are")


class Offline(Punctuator):
    """Of a whole text."""

    model: Literal["CTTransformer"]
    encoder: Literal["SANMEncoder"]


class Realtime(Punctuator):
    """Of the pieces that a voice activity detector lets through."""

    model: Literal["CTTransformerStreaming"]
    encoder: Literal["SANMVadEncoder"]

    def clashes(self) -> Iterator[Clash]:
        """Give parts that do not fit each other; the graph adds the first layer's output to its input."""
        yield from super().clashes()
        size = self.encoder_conf.output_size
        if self.encoder_conf.input_size != size:
            yield Clash("encoder_conf.input_size", self.encoder_conf.input_size, f"encoder_conf.output_size, {size}")
