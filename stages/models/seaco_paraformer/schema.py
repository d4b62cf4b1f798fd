"""config.yaml of Paraformer with hotwords."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from stages.models.paraformer.schema import Losses, Recognizer, TimePredictor, Weight
from stages.models.shared.schema import Clash, Share, Small, Width
from stages.models.shared.schema_parts import SanmDecoder, divided, within


class HotwordLosses(Losses):
    """SeACo's, with its bias encoder."""

    inner_dim: Width = 256
    bias_encoder_type: Literal["lstm"] = "lstm"
    bias_encoder_bid: Literal[False] = False
    bias_encoder_dropout_rate: Share = 0.0
    seaco_lsm_weight: Share = 0.0
    seaco_length_normal: bool = True
    seaco_length_normalized_loss: bool = True
    seaco_weight: Weight = 0.01
    train_decoder: bool = True
    NO_BIAS: Annotated[int, Field(ge=0, le=10_000_000)] = 8377


class HotwordDecoder(SanmDecoder):
    """The decoder over hotwords: embeddings in and out, and attention in its first six layers."""

    use_output_layer: Literal[False]
    wo_input_layer: Literal[True]
    att_layer_num: Literal[6] = 6
    sanm_shfit: Small = 0


class Seaco(Recognizer):
    """The offline recognizer that prefers hotwords."""

    model: Literal["SeacoParaformer"]
    model_conf: HotwordLosses
    encoder: Literal["SANMEncoder"]
    predictor: Literal["CifPredictorV3"]
    predictor_conf: TimePredictor
    seaco_decoder: Literal["ParaformerSANMDecoder"]
    seaco_decoder_conf: HotwordDecoder
    frontend: Literal["WavFrontend"] = "WavFrontend"

    def clashes(self) -> Iterator[Clash]:
        """Give parts that do not fit each other."""
        yield from super().clashes()
        width, inner = self.encoder_conf.output_size, self.model_conf.inner_dim
        yield from within(self.seaco_decoder_conf.clashes(), "seaco_decoder_conf")
        if inner != width:
            yield Clash("model_conf.inner_dim", inner, f"encoder_conf.output_size, {width}")
        heads = self.seaco_decoder_conf.attention_heads
        yield from divided(heads, inner, "model_conf.inner_dim", "seaco_decoder_conf.attention_heads")
