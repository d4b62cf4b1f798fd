"""Small graphs as text, run before and after a rewrite."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx_ir as ir

from stages.core.graphs import Feeds
from stages.runtimes import onnxruntime

HEAD = '<ir_version: 10, opset_import: ["" : 18]>'


def model(text: str, **weights: np.ndarray) -> ir.Model:
    """The graph of ONNX's textual syntax with `weights` as its initializers, float32 unless they are integers."""
    built = ir.from_onnx_text(HEAD + text)
    for name, weight in weights.items():
        array = weight if weight.dtype.kind == "i" else weight.astype(np.float32)
        tensor = ir.tensor(array, name=name)
        value = ir.Value(name=name, const_value=tensor)
        value.shape, value.dtype = ir.Shape(array.shape), tensor.dtype
        built.graph.register_initializer(value)
        for node in built.graph:
            for index, read in enumerate(node.inputs):
                if read is not None and read.name == name:
                    node.replace_input_with(index, value)
    built.graph.inputs[:] = [value for value in built.graph.inputs if value.name not in weights]
    return built


def numbers(value: ir.Value | None) -> np.ndarray:
    """The numbers of a constant."""
    assert value is not None
    assert value.const_value is not None
    return value.const_value.numpy()


def ops(built: ir.Model) -> Counter[str]:
    """How many nodes of each kind."""
    return Counter(node.op_type for node in built.graph)


def difference(one: ir.Model, other: ir.Model, feeds: Feeds) -> float:
    """The largest difference of any output in ONNX Runtime."""
    runs = [onnxruntime.session(ir.to_proto(m).SerializeToString()).run(None, feeds) for m in (one, other)]
    assert [a.shape for a in runs[0]] == [b.shape for b in runs[1]]
    return max(float(np.abs(a - b).max(initial=0)) for a, b in zip(*runs, strict=True))
