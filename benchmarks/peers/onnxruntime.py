"""ONNX Runtime's own quantizer, as its documentation says: run in .cache/peers/onnxruntime.

`python -m benchmarks.peers.onnxruntime RECIPE GRAPH CALIBRATION PLACE`
"""

from __future__ import annotations

import sys
from pathlib import Path

from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from benchmarks.peers import calibration
from benchmarks.peers.processor import lacks_vnni


class Feeds(calibration.Reader, CalibrationDataReader):  # type: ignore[misc]  # the library has no types
    """The feeds as `quantize_static` takes them."""


def main(recipe: str, graph: str, recorded: str, place: str) -> None:
    """Quantize a graph after the pre-processing that ONNX Runtime's documentation recommends."""
    prepared = str(Path(place).with_name("prepared.onnx"))
    try:
        quant_pre_process(graph, prepared)
    except Exception as e:  # noqa: BLE001  what it raises; each of its steps is optional
        print(f"without symbolic shapes: {e}")
        quant_pre_process(graph, prepared, skip_symbolic_shape=True)
    if recipe == "defaults":
        quantize_dynamic(prepared, place)
    elif recipe == "dynamic":
        quantize_dynamic(
            prepared,
            place,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            reduce_range=lacks_vnni(),
            weight_type=QuantType.QInt8,
        )
    else:
        quantize_static(
            prepared,
            place,
            Feeds(calibration.read(Path(recorded))),
            # Every kind of node, its default, quantizes the softmax: FunASR takes the logarithm of zeros then.
            op_types_to_quantize=["Conv", "MatMul", "Gemm"],
            per_channel=True,
            reduce_range=lacks_vnni(),
        )
    Path(prepared).unlink()


if __name__ == "__main__":
    main(*sys.argv[1:])
