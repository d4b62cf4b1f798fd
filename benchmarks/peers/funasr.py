"""FunASR's own export and quantization, and sherpa-onnx's of the same module: run in .cache/peers/funasr.

`python -m benchmarks.peers.funasr RECIPE CHECKPOINT CALIBRATION PLACE`
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path

import torch
from funasr import AutoModel

from benchmarks.peers import sherpa_onnx


def main(recipe: str, checkpoint: str, _: str, place: str) -> None:
    """Export and quantize a checkpoint: by `export` as FunASR does, by `sherpa_onnx` as sherpa-onnx does.

    With `_torchscript` after it, by the exporter that both were written for; else by torch's default.
    """
    if recipe.endswith("_torchscript"):
        torch.onnx.export = functools.partial(torch.onnx.export, dynamo=False)
    model = AutoModel(model=checkpoint, device="cpu", disable_update=True)
    if recipe.startswith("sherpa_onnx"):
        sherpa_onnx.export(model.model, Path(place))
    else:
        model.export(type="onnx", quantize=True, output_dir=str(Path(place).parent))
        Path(place).with_name("model_quant.onnx").replace(place)


if __name__ == "__main__":
    main(*sys.argv[1:])
