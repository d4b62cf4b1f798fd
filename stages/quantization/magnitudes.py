"""Which nodes of a graph exceed fp16's range, by what its values are on calibration data and what its constants are.

This is what NVIDIA ModelOpt's AutoCast does too. It is not used: version 0.47 wants ONNX 1.21 and ONNX Runtime 1.24
where Kiln has 1.23 and 1.32, brings CuPy, and keeps nothing that counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stages.core import graphs, progress
from stages.core.graphs import Feeds
from stages.quantization.counting import is_float

if TYPE_CHECKING:
    import onnx_ir as ir

LARGEST = float(np.finfo(np.float16).max)
SMALLEST = float(np.finfo(np.float16).smallest_normal)
SAFE = LARGEST / 4  # of a value seen on calibration data: others are louder, and -10000, which masks are made of, fits


def exceeding(model: ir.Model, largest: Mapping[str, float]) -> dict[ir.Node, str]:
    """Return the nodes whose values or constants fp16 cannot hold, with why.

    largest: the largest absolute value of each fp32 value that is computed, by name.
    """
    beyond = {
        value.name: f"a constant of {size:.3g} is beyond fp16's range"
        for value in model.graph.initializers.values()
        if is_float(value) and (size := _extreme(value)) is not None
    }
    near = {name: size for name, size in largest.items() if not size <= SAFE}  # NaN too
    beyond |= {name: f"values up to {size:.3g} are near fp16's range" for name, size in near.items()}
    found = {}
    for node in model.graph:
        values = (value.name for value in (*node.inputs, *node.outputs) if value is not None)
        if why := next((beyond[name] for name in values if name in beyond), None):
            found[node] = why
    return found


def largest_values(model: ir.Model, scratch: Path, weights: Path, feeds: Sequence[Feeds]) -> dict[str, float]:
    """Return the largest absolute value, over all feeds, of each fp32 value that a model is given or computes.

    scratch: a folder for a copy that gives them. weights: the folder with the model's large weights.
    """
    from stages.runtimes import onnxruntime

    observed, names = _observed(model)
    graphs.save(observed, scratch / "observed.onnx", weights)
    session, largest = onnxruntime.session(scratch / "observed.onnx", weights=weights), np.zeros(len(names))
    for fed in progress.each(feeds, "inputs heard for their largest values"):
        found = session.run([output.name for output in observed.graph.outputs], fed)
        largest = np.maximum(largest, [np.max(value, initial=0) for value in found])
    return dict(zip(names, largest.tolist(), strict=True))


def _observed(model: ir.Model) -> tuple[ir.Model, list[str]]:
    """Return a copy of a model whose outputs are the largest absolute values of its values, and the names of those."""
    import onnx_ir as ir

    observed = model.clone()
    made = (output for node in observed.graph for output in node.outputs)
    values = [value for value in (*observed.graph.inputs, *made) if is_float(value)]
    observed.graph.outputs.clear()
    for value in values:
        size = ir.node("Abs", [value])
        top = ir.node("ReduceMax", [size.outputs[0]], {"keepdims": 0})
        top.outputs[0].dtype, top.outputs[0].shape = ir.DataType.FLOAT, ir.Shape([])
        observed.graph.extend([size, top])
        observed.graph.outputs.append(top.outputs[0])
    return observed, [str(value.name) for value in values]


def _extreme(constant: ir.Value) -> float | None:
    """Return the largest size of a constant's finite numbers, if fp16 makes infinity or next to nothing of it."""
    numbers: NDArray[np.float32] = constant.const_value.numpy()  # type: ignore[union-attr]  # an initializer's
    size = float(np.max(np.abs(numbers), where=np.isfinite(numbers), initial=0))
    return size if size > LARGEST or 0 < size < SMALLEST else None
