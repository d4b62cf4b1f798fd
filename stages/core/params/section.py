"""The base of every section of params.yaml, and the words that several sections use."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Key = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]*$")]
Variant = Literal["dense", "pruned"]
Runtime = Literal["onnxruntime", "tensorrt_rtx", "tensorrt"]
Split = Literal["calibration", "tuning", "evaluation"]


class Section(BaseModel):
    """A section: frozen, and without keys that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)
