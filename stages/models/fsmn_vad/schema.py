"""config.yaml of FSMN-VAD."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from stages.models.shared.schema import (
    Clash,
    ClosedSection,
    Config,
    Milliseconds,
    Section,
    Signed,
    Small,
    Taps,
    Width,
)
from stages.models.shared.schema_parts import Frontend


class VadFrontend(Frontend):
    """A frame of the network is one of 10 ms, as the state machine counts."""

    lfr_n: Literal[1] = 1
    frame_length: Literal[25] = 25


class Fsmn(ClosedSection):
    """FunASR's FSMN; its graph has four caches of the past, and looks at no frame to come."""

    input_dim: Width
    input_affine_dim: Width
    fsmn_layers: Literal[4]
    linear_dim: Width
    proj_dim: Width
    lorder: Annotated[int, Field(ge=2, le=1001)]
    rorder: Literal[0]
    lstride: Annotated[int, Field(ge=1, le=100)]
    rstride: Small
    output_affine_dim: Width
    output_dim: Annotated[int, Field(ge=2, le=65_536)]
    use_softmax: Literal[True] = True


class StateMachine(Section):
    """What turns posteriors into segments; FunASR's own names and values."""

    sample_rate: Literal[16_000] = 16_000
    detect_mode: Literal[0, 1] = 1
    snr_mode: Literal[0, 1] = 0
    max_end_silence_time: Milliseconds
    max_start_silence_time: Milliseconds = 3000
    do_start_point_detection: bool = True
    do_end_point_detection: bool = True
    window_size_ms: Annotated[int, Field(ge=10, le=60_000)] = 200
    sil_to_speech_time_thres: Milliseconds = 150
    speech_to_sil_time_thres: Milliseconds = 150
    speech_2_noise_ratio: Signed = 1.0
    do_extend: Literal[0, 1] = 1
    lookback_time_start_point: Milliseconds = 200
    lookahead_time_end_point: Milliseconds = 100
    max_single_segment_time: Annotated[int, Field(ge=10, le=24 * 3_600_000)] = 60_000
    nn_eval_block_size: Taps = 8
    dcd_block_size: Taps = 4
    snr_thres: Signed = -100.0
    noise_frame_num_used_for_snr: Annotated[int, Field(ge=1, le=100_000)] = 100
    decibel_thres: Signed = -100.0
    speech_noise_thres: Annotated[float, Field(gt=-1, lt=1)] = 0.6
    fe_prior_thres: Annotated[float, Field(ge=0, le=1)] = 1e-4
    silence_pdf_num: Width = 1
    sil_pdf_ids: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] = Field(default_factory=lambda: [0])
    speech_noise_thresh_low: Signed = -0.1
    speech_noise_thresh_high: Signed = 0.3
    output_frame_probs: bool = False
    frame_in_ms: Literal[10] = 10
    frame_length_ms: Literal[25] = 25


class FsmnVad(Config):
    """The whole of it."""

    model: Literal["FsmnVADStreaming"]
    model_conf: StateMachine
    encoder: Literal["FSMN"]
    encoder_conf: Fsmn
    frontend: Literal["WavFrontend", "WavFrontendOnline"] = "WavFrontendOnline"
    frontend_conf: VadFrontend

    def clashes(self) -> Iterator[Clash]:
        """Give an input that the front end does not fill, and silences that the network does not tell."""
        yield from super().clashes()
        size, outputs = self.frontend_conf.size, self.encoder_conf.output_dim
        if self.encoder_conf.input_dim != size:
            yield Clash(
                "encoder_conf.input_dim", self.encoder_conf.input_dim, f"frontend_conf's n_mels * lfr_m, {size}"
            )
        silent = self.model_conf.sil_pdf_ids
        if max(silent) >= outputs:
            yield Clash("model_conf.sil_pdf_ids", silent, f"numbers below encoder_conf.output_dim, {outputs}")
