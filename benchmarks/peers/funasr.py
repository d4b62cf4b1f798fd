"""FunASR's own export and quantization: run in .cache/peers/funasr.

`python -m benchmarks.peers.funasr RECIPE CHECKPOINT CALIBRATION PLACE`
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path

import torch
from funasr import AutoModel


def main(recipe: str, checkpoint: str, _: str, place: str) -> None:
    """Run FunASR's own export and quantization of a checkpoint.

    `export` runs it as it is; `torchscript` with the exporter that it was written for, then torch's default.
    """
    if recipe == "torchscript":
        torch.onnx.export = functools.partial(torch.onnx.export, dynamo=False)
    folder = Path(place).parent
    AutoModel(model=checkpoint, device="cpu", disable_update=True).export(
        type="onnx", quantize=True, output_dir=str(folder)
    )
    (folder / "model_quant.onnx").replace(place)


if __name__ == "__main__":
    main(*sys.argv[1:])
