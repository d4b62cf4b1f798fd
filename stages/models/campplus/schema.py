"""config.yaml of CAM++."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from stages.models.shared.schema import Clash, ClosedSection, Config, Section, Width

FEATURES = 80  # of a frame: FunASR's `extract_feature` computes so many, whatever config.yaml says
LONGEST_REDUCTION = 512

Kept = Annotated[int, Field(ge=2, le=65_536)]


class KeptChannels(ClosedSection):
    """How many hidden channels pruning left, which FunASR has no key for.

    head: inside each residual block of the convolutions in front; block1 to block3: inside each layer of a dense block.
    """

    head: Kept | None = None
    block1: Kept | None = None
    block2: Kept | None = None
    block3: Kept | None = None


class CamPlusPlus(Section):
    """The network; depths, kernels and the width of the convolutions in front are constants of FunASR's."""

    feat_dim: Literal[80] = 80
    embedding_size: Width = 192
    growth_rate: Width = 32
    bn_size: Annotated[int, Field(ge=1, le=64)] = 4
    init_channels: Width = 128
    config_str: Literal["batchnorm-relu"] = "batchnorm-relu"
    memory_efficient: bool = True
    output_level: Literal["segment"] = "segment"
    kept_channels: KeptChannels | None = None

    def clashes(self) -> Iterator[Clash]:
        """Give parts that do not fit each other."""
        if self.bn_size * self.growth_rate < 2:
            yield Clash("model_conf.bn_size", self.bn_size, "2 or more: a layer's context has half of its channels")


class Frontend(Section):
    """What FunASR's `extract_feature` computes, whatever else is said here: sound at the rate of all data here."""

    fs: Literal[16_000] = 16_000


class Campplus(Config):
    """The whole of it."""

    model: Literal["CAMPPlus"]
    model_conf: CamPlusPlus = CamPlusPlus()
    frontend_conf: Frontend | None = None

    def clashes(self) -> Iterator[Clash]:
        """Give parts that do not fit each other."""
        yield from super().clashes()
        yield from self.model_conf.clashes()
