"""Sections that several families have: FunASR's front end, its SAN-M encoders and decoder, its CIF predictors.

A closed section lists every argument of FunASR's class. Where the graphs are written for one value of an option, that
value is the only one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from stages.models.shared.schema import (
    Blocks,
    Clash,
    ClosedSection,
    Exactly1,
    Index,
    Positive,
    Section,
    Share,
    Signed,
    Small,
    Taps,
    Width,
)

Empty = Annotated[list[int], Field(max_length=0)]


class Frontend(Section):
    """FunASR's WavFrontend; `fs` is the rate of all data here, and times are counted in its frames of 10 ms."""

    fs: Literal[16_000] = 16_000
    window: Literal["hamming", "hanning", "povey", "rectangular", "blackman"] = "hamming"
    n_mels: Annotated[int, Field(ge=4, le=128)] = 80  # of more, a filter would be narrower than a bin of the spectrum
    frame_length: Annotated[int, Field(ge=10, le=100)] = 25
    frame_shift: Literal[10] = 10
    lfr_m: Annotated[int, Field(ge=1, le=50)] = 1
    lfr_n: Annotated[int, Field(ge=1, le=50)] = 1
    filter_length_min: Index = -1
    filter_length_max: Index = -1
    dither: Annotated[float, Field(ge=0, le=1000)] = 1.0
    snip_edges: bool = True
    upsacle_samples: bool = True  # FunASR's spelling
    cmvn_file: str | None = None  # am.mvn beside config.yaml is read, whatever this says

    @property
    def size(self) -> int:
        """Count the features of a frame."""
        return self.n_mels * self.lfr_m


class Tokenizer(Section):
    """FunASR's CharTokenizer, which reads tokens.json; a path in here is never opened."""

    unk_symbol: Literal["<unk>"] = "<unk>"
    split_with_space: bool = False


class SanmEncoder(ClosedSection):
    """FunASR's SANMEncoder, as Paraformer has it: the front end says what enters."""

    output_size: Width = 256
    attention_heads: Width = 4
    linear_units: Width = 2048
    num_blocks: Blocks = 6
    dropout_rate: Share = 0.1
    positional_dropout_rate: Share = 0.1
    attention_dropout_rate: Share = 0.0
    input_layer: Literal["pe"]
    pos_enc_class: str | None = None
    normalize_before: Literal[True] = True
    concat_after: Literal[False] = False
    positionwise_layer_type: Literal["linear"] = "linear"
    positionwise_conv_kernel_size: Taps = 1
    padding_idx: Index = -1
    interctc_layer_idx: Empty = Field(default_factory=list)
    interctc_use_conditioning: Literal[False] = False
    kernel_size: Taps = 11
    sanm_shfit: Small = 0  # FunASR's spelling
    lora_list: Annotated[list[str], Field(max_length=0)] | None = None
    lora_rank: Small = 8
    lora_alpha: Small = 16
    lora_dropout: Share = 0.1
    selfattention_layer_type: Literal["sanm"] = "sanm"
    tf2torch_tensor_name_prefix_torch: str = "encoder"
    tf2torch_tensor_name_prefix_tf: str = "seq2seq/encoder"
    kept_heads: Width | None = None  # ours: `stages.pruning.narrowing.HEADS`

    def clashes(self) -> Iterator[Clash]:
        """Give heads that do not divide the width, and a memory that is shifted out of its kernel."""
        yield from divided(self.attention_heads, self.output_size, "output_size")
        yield from shifted(self.sanm_shfit, self.kernel_size)
        yield from kept(self.kept_heads, self.attention_heads)


class SanmDecoder(ClosedSection):
    """FunASR's ParaformerSANMDecoder, as wide as the encoder."""

    attention_heads: Width = 4
    linear_units: Width = 2048
    num_blocks: Blocks = 6
    dropout_rate: Share = 0.1
    positional_dropout_rate: Share = 0.1
    self_attention_dropout_rate: Share = 0.0
    src_attention_dropout_rate: Share = 0.0
    input_layer: Literal["embed"] = "embed"
    use_output_layer: bool = True
    wo_input_layer: bool = False
    normalize_before: Literal[True] = True
    concat_after: Literal[False] = False
    att_layer_num: Blocks = 6
    kernel_size: Taps = 21
    sanm_shfit: Small | None = 0
    lora_list: Annotated[list[str], Field(max_length=0)] | None = None
    lora_rank: Small = 8
    lora_alpha: Small = 16
    lora_dropout: Share = 0.1
    chunk_multiply_factor: list[Small] = Field(default_factory=lambda: [1])
    tf2torch_tensor_name_prefix_torch: str = "decoder"
    tf2torch_tensor_name_prefix_tf: str = "seq2seq/decoder"
    kept_heads: Width | None = None  # ours: `stages.pruning.narrowing.HEADS`

    def clashes(self) -> Iterator[Clash]:
        """Give a memory that is shifted out of its kernel, and heads that are not there."""
        yield from shifted(self.sanm_shfit or 0, self.kernel_size)
        yield from kept(self.kept_heads, self.attention_heads)


class MainDecoder(SanmDecoder):
    """The decoder that says the tokens."""

    use_output_layer: Literal[True] = True
    wo_input_layer: Literal[False] = False


class Predictor(ClosedSection):
    """FunASR's CifPredictorV2. The graphs cut tokens where the sum of weights passes a whole number."""

    idim: Width
    l_order: Small
    r_order: Small
    threshold: Exactly1 = 1.0
    dropout: Share = 0.1
    smooth_factor: Positive = 1.0
    noise_threshold: Signed = 0.0
    tail_threshold: Share = 0.0
    tf2torch_tensor_name_prefix_torch: str = "predictor"
    tf2torch_tensor_name_prefix_tf: str = "seq2seq/cif"
    tail_mask: bool = True


def within(clashes: Iterator[Clash], section: str) -> Iterator[Clash]:
    """Give clashes of a section as seen from the whole configuration."""
    return (Clash(f"{section}.{clash.key}", clash.found, clash.wanted) for clash in clashes)


def divided(heads: int, width: int, name: str, key: str = "attention_heads") -> Iterator[Clash]:
    """Give attention heads that do not divide the width, which is called `name`."""
    if width % heads:
        yield Clash(key, heads, f"a divisor of {name} {width}")


def shifted(shift: int, kernel: int) -> Iterator[Clash]:
    """Give the shift of a memory that would not see the present."""
    if shift > kernel // 2:
        yield Clash("sanm_shfit", shift, f"at most {kernel // 2}, half of kernel_size {kernel}")


def kept(heads: int | None, of: int) -> Iterator[Clash]:
    """Give a number of kept heads that is larger than that of all heads."""
    if heads is not None and heads > of:
        yield Clash("kept_heads", heads, f"at most attention_heads {of}")
