"""The base of every section of params.yaml, and the words that several sections use."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Key = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]*$")]
Variant = Literal["dense", "pruned"]
Runtime = Literal[
    "onnxruntime",
    "onnxruntime_1_16_1",
    "onnxruntime_cuda",
    "ort_format",
    "openvino",
    "openvino_bf16",
    "litert",
    "torchscript",
    "tensorrt_rtx",
    "tensorrt",
]
ONNX_RUNTIMES = ("onnxruntime", "onnxruntime_1_16_1")  # which load ONNX graphs, on the CPU
TENSORRT = ("tensorrt_rtx", "tensorrt")
GPU_RUNTIMES = ("onnxruntime_cuda", *TENSORRT)  # which run on a CUDA device
ENGINES = ("ort_format", "openvino", "openvino_bf16", "litert", *TENSORRT)  # for which `engine` makes files of a graph
TRACED = ("torchscript",)  # and `trace` of the checkpoint
OWN_FILES = (*ENGINES, *TRACED)  # which load these, not ONNX graphs
FORKABLE = (*ONNX_RUNTIMES, "ort_format", *TRACED)  # in a process that has loaded them; no CUDA context survives that
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # what every library takes
Seconds = Annotated[float, Field(gt=0, le=7 * 24 * 3600)]
Split = Literal["calibration", "tuning", "evaluation", "final"]


class Section(BaseModel):
    """A section: frozen, without keys that it does not know, and every number finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
