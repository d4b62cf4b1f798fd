"""config.yaml of Paraformer for streams."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from stages.models.paraformer.schema import Recognizer
from stages.models.shared.schema import Clash, Small
from stages.models.shared.schema_parts import SanmEncoder

Chunks = Annotated[list[Small], Field(min_length=1)]  # one for each way in which training cut its streams
AHEAD = "the family paraformer_streaming streams a decoder that looks only back. Is this an offline checkpoint?"


class ChunkEncoder(SanmEncoder):
    """FunASR's SANMEncoderChunkOpt."""

    input_layer: Literal["pe_online"]  # type: ignore[assignment]
    chunk_size: Chunks = Field(default_factory=lambda: [16])
    stride: Chunks = Field(default_factory=lambda: [10])
    pad_left: Chunks = Field(default_factory=lambda: [0])
    encoder_att_look_back_factor: Chunks = Field(default_factory=lambda: [1])
    decoder_att_look_back_factor: Chunks = Field(default_factory=lambda: [1])


class Streaming(Recognizer):
    """The streaming recognizer: the caches of its decoder hold tokens of the past, and none to come."""

    model: Literal["ParaformerStreaming"]
    encoder: Literal["SANMEncoderChunkOpt"]
    encoder_conf: ChunkEncoder
    predictor: Literal["CifPredictorV2"]
    frontend: Literal["WavFrontend", "WavFrontendOnline"] = "WavFrontendOnline"

    def clashes(self) -> Iterator[Clash]:
        """Give parts that do not fit each other, and a decoder that looks ahead.

        Every block's memory has to be shifted to look only back; FunASR does not shift those without attention.
        """
        yield from super().clashes()
        decoder = self.decoder_conf
        causal, blocks = (decoder.kernel_size - 1) // 2, decoder.num_blocks
        if decoder.att_layer_num < blocks:
            yield Clash("decoder_conf.att_layer_num", decoder.att_layer_num, f"{blocks}: {AHEAD}")
        if decoder.sanm_shfit not in {None, causal}:
            yield Clash("decoder_conf.sanm_shfit", decoder.sanm_shfit, f"{causal}: {AHEAD}")
