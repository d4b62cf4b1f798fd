"""NVIDIA ModelOpt's ONNX quantizer: run in .cache/peers/modelopt.

`python -m benchmarks.peers.modelopt RECIPE GRAPH CALIBRATION PLACE`
"""

from __future__ import annotations

import sys
from pathlib import Path

from modelopt.onnx.quantization import quantize

from benchmarks.peers import calibration


def main(recipe: str, graph: str, recorded: str, place: str) -> None:
    """Quantize a graph with ModelOpt's defaults, but leave what is not quantized in fp32: fp16 is slow on a CPU.

    `dq_only` keeps weights as INT8: the default's fp32 beside QuantizeLinear makes the file three times larger.
    """
    quantize(
        graph,
        quantize_mode=recipe,
        calibration_data_reader=calibration.Reader(calibration.read(Path(recorded))),
        calibration_eps=["cpu"],
        high_precision_dtype="fp32",
        dq_only=True,
        output_path=place,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
