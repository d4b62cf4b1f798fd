"""config.yaml of SenseVoiceSmall."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from stages.models.paraformer.schema import RecognizerFrontend
from stages.models.shared.schema import Clash, ClosedSection, Config, Index, Section, Share, Small, Width
from stages.models.shared.schema_parts import SanmEncoder, within


class Losses(Section):
    """What training used, and the numbers of special tokens."""

    ignore_id: Index = -1
    blank_id: Literal[0] = 0  # what `funasr_onnx` and sherpa-onnx take for it
    sos: Index = 1
    eos: Index = 2
    lsm_weight: Share = 0.0
    length_normalized_loss: bool = False


class SenseEncoder(SanmEncoder):
    """FunASR's SenseVoiceEncoderSmall: a SAN-M encoder, and `tp_blocks` more of its blocks with a norm of their own."""

    tp_blocks: Small = 0
    stochastic_depth_rate: Share = 0.0


class Ctc(ClosedSection):
    """FunASR's CTC, of which the graph has the last layer."""

    dropout_rate: Share = 0.0
    ctc_type: Literal["builtin"] = "builtin"
    reduce: bool = True
    ignore_nan_grad: bool = True
    extra_linear: Literal[True] = True
    kept_heads: Width | None = None  # ours: of the encoder, `stages.models.sensevoice.network.with_widths`


class Pieces(Section):
    """FunASR's SentencepiecesTokenizer; the file beside config.yaml is read, whatever a path in here says."""

    bpemodel: str | None = None


class SenseVoice(Config):
    """The recognizer of five languages."""

    model: Literal["SenseVoiceSmall"]
    model_conf: Losses = Field(default_factory=Losses)
    encoder: Literal["SenseVoiceEncoderSmall"]
    encoder_conf: SenseEncoder
    ctc_conf: Ctc | None = None
    frontend: Literal["WavFrontend"] = "WavFrontend"
    frontend_conf: RecognizerFrontend
    tokenizer: Literal["SentencepiecesTokenizer"] | None = None
    tokenizer_conf: Pieces | None = None
    normalize: None = None

    def clashes(self) -> Iterator[Clash]:
        """Give parts that do not fit each other."""
        yield from super().clashes()
        yield from within(self.encoder_conf.clashes(), "encoder_conf")
        front = self.frontend_conf
        if front.size % 2:
            yield Clash(
                "frontend_conf.n_mels", front.n_mels, f"n_mels * lfr_m even, as positions are; it is {front.size}"
            )
