"""OpenVINO's conversion and runtime and NNCF's post-training quantization: run in .cache/peers/openvino.

`python -m benchmarks.peers.openvino RECIPE GRAPH CALIBRATION PLACE`
`python -m benchmarks.peers.openvino serve MODEL DESCRIPTOR` answers feeds on a connection with outputs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import openvino

from benchmarks.peers import calibration
from benchmarks.peers.calibration import Feeds
from benchmarks.peers.processor import lacks_vnni


def network(model: Path) -> Callable[[Feeds], Feeds]:
    """Compile a model into a function of named inputs: one thread, unpinned as in ONNX Runtime, fp32 where not INT8.

    bfloat16, the default where the processor has it, breaks the running sum by which Paraformer counts tokens.
    """
    compiled = openvino.compile_model(
        model,
        "CPU",
        {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": 1,
            "ENABLE_CPU_PINNING": False,
        },
    )
    request, names = compiled.create_infer_request(), [output.any_name for output in compiled.outputs]

    def run(feeds: Feeds) -> Feeds:
        outputs = request.infer(feeds, share_inputs=True)
        return {name: outputs[name] for name in names}

    return run


def serve(model: Path, descriptor: int) -> None:
    """Answer feeds with outputs until the other side closes the connection."""
    connection, run = Connection(descriptor), network(model)
    while True:
        try:
            feeds = connection.recv()
        except EOFError:
            return
        connection.send(run(feeds))


def build(recipe: str, graph: str, recorded: str, place: str) -> None:
    """Convert the graph to OpenVINO; `int8` and `int8_transformer` quantize it too."""
    import nncf
    from nncf.quantization.advanced_parameters import OverflowFix

    model = openvino.convert_model(graph)
    if recipe != "fp32":
        model = nncf.quantize(
            model,
            nncf.Dataset(calibration.read(Path(recorded))),
            model_type=nncf.ModelType.TRANSFORMER if recipe == "int8_transformer" else None,
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                overflow_fix=OverflowFix.ENABLE if lacks_vnni() else OverflowFix.DISABLE
            ),
        )
    openvino.save_model(model, place, compress_to_fp16=False)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        build(*sys.argv[1:])
