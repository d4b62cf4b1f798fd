"""What a graph in half precision computes where every value in it is rounded, as a GPU does.

ONNX Runtime on a CPU has few fp16 kernels and no bf16: it computes several nodes in fp32 before it rounds.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray
from onnx_ir.passes.common import ShapeInferencePass

from stages.core.graphs import Feeds

HALF = {ir.DataType.FLOAT16, ir.DataType.BFLOAT16}


def run(place: Path, feeds: Feeds) -> list[NDArray[np.generic]]:
    """The outputs of a graph whose every value of a half kind is rounded, and whose arithmetic is in fp32."""
    model = ir.load(place)
    ShapeInferencePass()(model)
    for node in [node for node in model.graph if node.op_type != "Cast"]:
        for index, value in enumerate(node.inputs):
            if value is not None and value.dtype in HALF:
                wide = ir.node("Cast", [value], {"to": ir.DataType.FLOAT})
                model.graph.insert_before(node, wide)
                node.replace_input_with(index, wide.outputs[0])
        for value in [output for output in node.outputs if output.dtype in HALF]:
            uses, kind = list(value.uses()), value.dtype
            assert kind is not None
            narrow = ir.node("Cast", [value], {"to": kind})
            value.dtype, narrow.outputs[0].dtype = ir.DataType.FLOAT, kind
            model.graph.insert_after(node, narrow)
            for use in uses:
                use.node.replace_input_with(use.idx, narrow.outputs[0])
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # or it drops casts
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)
