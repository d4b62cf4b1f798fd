"""config.yaml of Paraformer, and what every kind of Paraformer shares."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from stages.models.shared.schema import Clash, Config, Index, Section, Share, Signed
from stages.models.shared.schema_parts import (
    Frontend,
    MainDecoder,
    Predictor,
    SanmEncoder,
    Tokenizer,
    divided,
    within,
)

Weight = Annotated[float, Field(ge=0, le=1000)]


class Losses(Section):
    """What training used, and the numbers of special tokens. `encoder` and its like belong one level up."""

    ctc_weight: Annotated[float, Field(ge=0, lt=1)] = 0.5  # at 1 FunASR has no decoder
    ignore_id: Index = -1
    blank_id: Index = 0
    sos: Index = 1
    eos: Index = 2
    lsm_weight: Share = 0.0
    length_normalized_loss: bool = False
    predictor_weight: Weight = 0.0
    predictor_bias: Literal[0, 1] = 0
    sampling_ratio: Signed = 0.2
    share_embedding: Literal[False] = False
    use_1st_decoder_loss: bool = False


class RecognizerFrontend(Frontend):
    """Six frames of 10 ms are one of the network's."""

    lfr_m: Annotated[int, Field(ge=1, le=50)]
    lfr_n: Literal[6]


class OfflinePredictor(Predictor):
    """FunASR runs the offline model with a last token that comes of the tail."""

    tail_threshold: Annotated[float, Field(gt=0, le=1)]
    tail_mask: Literal[True] = True


class TimePredictor(OfflinePredictor):
    """FunASR's CifPredictorV3, which also gives times."""

    smooth_factor2: Weight = 1.0
    noise_threshold2: Signed = 0.0
    upsample_times: Annotated[int, Field(ge=1, le=100)] = 5
    upsample_type: Literal["cnn_blstm"]
    use_cif1_cnn: bool = True


class Recognizer(Config):
    """What all Paraformers have."""

    model_conf: Losses
    encoder_conf: SanmEncoder
    decoder: Literal["ParaformerSANMDecoder"]
    decoder_conf: MainDecoder
    predictor_conf: Predictor
    frontend_conf: RecognizerFrontend
    normalize: None = None  # the graphs have none
    tokenizer: Literal["CharTokenizer"] | None = None
    tokenizer_conf: Tokenizer | None = None

    def clashes(self) -> Iterator[Clash]:
        """Give parts that do not fit each other."""
        yield from super().clashes()
        width, front = self.encoder_conf.output_size, self.frontend_conf
        yield from within(self.encoder_conf.clashes(), "encoder_conf")
        yield from within(self.decoder_conf.clashes(), "decoder_conf")
        yield from divided(
            self.decoder_conf.attention_heads, width, "encoder_conf.output_size", "decoder_conf.attention_heads"
        )
        if self.predictor_conf.idim != width:
            yield Clash("predictor_conf.idim", self.predictor_conf.idim, f"encoder_conf.output_size, {width}")
        if front.size % 2:
            yield Clash(
                "frontend_conf.n_mels", front.n_mels, f"n_mels * lfr_m even, as positions are; it is {front.size}"
            )


class Paraformer(Recognizer):
    """The offline recognizer."""

    model: Literal["Paraformer"]
    encoder: Literal["SANMEncoder"]
    predictor: Literal["CifPredictorV2"]
    predictor_conf: OfflinePredictor
    frontend: Literal["WavFrontend"] = "WavFrontend"


class BiCif(Recognizer):
    """The offline recognizer that also says when each token is said."""

    model: Literal["BiCifParaformer"]
    encoder: Literal["SANMEncoder"]
    predictor: Literal["CifPredictorV3"]
    predictor_conf: TimePredictor
    frontend: Literal["WavFrontend"] = "WavFrontend"
