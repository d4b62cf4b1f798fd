"""config.yaml of emotion2vec."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from stages.models.shared.schema import Blocks, Clash, Config, Positive, Section, Share, Signed, Small, Taps, Width
from stages.models.shared.schema_parts import Tokenizer, divided

# FunASR evaluates feature_encoder_spec as Python. Only what it is meant to say gets through: [(width, kernel, stride)]
# lists, each repeated by `* n`, added up.
_CONVOLUTIONS = r"\s*\[\s*\(\s*[1-9]\d{0,3}\s*,\s*[1-9]\d{0,2}\s*,\s*[1-9]\d{0,2}\s*\)\s*\]\s*(?:\*\s*[1-9]\d?\s*)?"
_SPEC = re.compile(rf"{_CONVOLUTIONS}(?:\+{_CONVOLUTIONS}){{0,63}}", re.ASCII)


def _convolutions(spec: str) -> str:
    if not _SPEC.fullmatch(spec):
        raise ValueError(
            "lists like '[(512, 10, 5)] + [(512, 3, 2)] * 4': FunASR runs this value as code, so nothing else is let "
            "through"
        )
    return spec


class Audio(Section):
    """FunASR's AudioEncoder, without what only pre-training uses."""

    type: Literal["AUDIO"] = "AUDIO"
    prenet_depth: Annotated[int, Field(ge=0, le=500)]
    prenet_layerdrop: Share
    prenet_dropout: Share
    start_drop_path_rate: Share
    end_drop_path_rate: Share
    num_extra_tokens: Small
    init_extra_token_zero: bool
    local_grad_mult: Share
    use_alibi_encoder: bool
    alibi_scale: Signed
    learned_alibi: Literal[False]
    alibi_max_pos: Small | None = None
    learned_alibi_scale: bool
    learned_alibi_scale_per_head: bool
    learned_alibi_scale_per_layer: bool
    num_alibi_heads: Width
    model_depth: Blocks
    decoder: dict[str, Any] | None = None
    extractor_mode: Literal["layer_norm", "default"]
    feature_encoder_spec: Annotated[str, AfterValidator(_convolutions)]
    conv_pos_width: Taps
    conv_pos_groups: Width
    conv_pos_depth: Blocks
    conv_pos_pre_ln: bool


class Modalities(Section):
    """Sound, the only one that FunASR builds."""

    audio: Audio


class Data2vec(Section):
    """The network; FunASR has no default for any of these."""

    depth: Blocks
    start_drop_path_rate: Share
    end_drop_path_rate: Share
    num_heads: Width
    norm_eps: Annotated[float, Field(gt=0, le=1)]
    norm_affine: bool
    encoder_dropout: Share
    post_mlp_drop: Share
    attention_dropout: Share
    activation_dropout: Share
    dropout_input: Share
    layerdrop: Share = 0.0
    embed_dim: Width
    mlp_ratio: Annotated[float, Field(gt=0, le=64)]
    layer_norm_first: bool
    end_of_block_targets: bool = False
    average_top_k_layers: Small = 0
    loss_beta: Signed = 0.0
    loss_scale: Positive | None = None
    clone_batch: Small = 1
    normalize: bool
    modalities: Modalities

    def clashes(self) -> Iterator[Clash]:
        """Give parts that do not fit each other."""
        audio, place = self.modalities.audio, "model_conf.modalities.audio"
        yield from divided(self.num_heads, self.embed_dim, "model_conf.embed_dim", "model_conf.num_heads")
        yield from divided(audio.conv_pos_groups, self.embed_dim, "model_conf.embed_dim", f"{place}.conv_pos_groups")
        if audio.num_alibi_heads != self.num_heads:
            yield Clash(f"{place}.num_alibi_heads", audio.num_alibi_heads, f"model_conf.num_heads, {self.num_heads}")
        if int(self.embed_dim * self.mlp_ratio) < 1:
            yield Clash("model_conf.mlp_ratio", self.mlp_ratio, f"a width of 1 or more of embed_dim {self.embed_dim}")


class Rate(Section):
    """Sound at the rate of all data here."""

    fs: Literal[16_000] = 16_000


class Emotion2vec(Config):
    """The whole of it."""

    model: Literal["Emotion2vec"]
    model_conf: Data2vec
    frontend_conf: Rate | None = None
    tokenizer: Literal["CharTokenizer"] | None = None
    tokenizer_conf: Tokenizer | None = None

    def clashes(self) -> Iterator[Clash]:
        """Give parts that do not fit each other."""
        yield from super().clashes()
        yield from self.model_conf.clashes()
