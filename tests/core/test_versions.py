"""A graph that is written names the lowest ONNX versions in which it means the same, and no lower ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from stages.core import graphs, versions
from stages.runtimes import onnxruntime


def model(*nodes: onnx.NodeProto, opset: int = 18, kind: int = TensorProto.FLOAT, **domains: int) -> ir.Model:
    """A graph of x (2, 3) to y, in the newest IR version that the checker takes."""
    ends = [helper.make_tensor_value_info(name, kind, [2, 3]) for name in ("x", "y")]
    axes = numpy_helper.from_array(np.array([1]), "axes")
    graph = helper.make_graph(list(nodes), "g", ends[:1], ends[1:], [axes])
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(f"com.{d}", v) for d, v in domains.items())]
    return ir.from_proto(helper.make_model(graph, opset_imports=imports, ir_version=10))


RELU = helper.make_node("Relu", ["x"], ["y"])
MEAN = helper.make_node("ReduceMean", ["x", "axes"], ["y"])  # axes are an input since 18
NORM = helper.make_node("LayerNormalization", ["x", "axes"], ["y"])
GELU = helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft")


@pytest.mark.parametrize(
    ("given", "opset", "ir_version"),
    [
        pytest.param(model(RELU), 14, 7, id="older"),
        pytest.param(model(MEAN), 18, 8, id="as-it-is"),
        pytest.param(model(NORM, opset=24), 17, 8, id="between"),
        pytest.param(model(helper.make_node("Gelu", ["x"], ["y"]), opset=21), 20, 9, id="newer"),
        pytest.param(model(GELU, microsoft=1), 18, 8, id="no-standard-operator"),
        pytest.param(model(helper.make_node("Mine", ["x"], ["y"])), 18, 8, id="unknown-operator"),
    ],
)  # fmt: skip
def test_the_lowest_versions(given: ir.Model, opset: int, ir_version: int, tmp_path: Path):
    before = dict(given.opset_imports), given.ir_version
    graphs.save(given, tmp_path / "model.onnx")
    written = onnx.load(tmp_path / "model.onnx")
    found = {each.domain: each.version for each in written.opset_import}
    assert (found[""], written.ir_version) == (opset, ir_version)
    assert (dict(given.opset_imports), given.ir_version) == before


@pytest.mark.parametrize(("kind", "ir_version"), [("FLOAT8E4M3FN", 9), ("INT4", 10), ("FLOAT16", 8)])
def test_a_type_that_no_opset_tells_of_counts(kind: str, ir_version: int):
    given = model(GELU, microsoft=1, kind=TensorProto.DataType.Value(kind))
    with versions.lowest(given):
        assert given.ir_version == ir_version


def test_rewrites_find_the_opset_whose_operators_they_make(tmp_path: Path):
    graphs.save(model(RELU), tmp_path / "model.onnx")
    assert graphs.load(tmp_path / "model.onnx").opset_imports[""] == versions.WORKING_OPSET


def test_an_opset_in_which_an_operator_means_something_else_is_not_raised(tmp_path: Path):
    node = helper.make_node("ReduceMean", ["x"], ["y"], axes=[1])
    graphs.save(model(node, opset=13), tmp_path / "model.onnx")
    assert graphs.load(tmp_path / "model.onnx").opset_imports[""] == 13


def test_the_numbers_stay(tmp_path: Path):
    given = model(helper.make_node("Add", ["x", "x"], ["z"]), helper.make_node("Relu", ["z"], ["y"]))
    ir.save(given, tmp_path / "before.onnx")
    graphs.save(given, tmp_path / "after.onnx")
    x = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
    before, after = (onnxruntime.session(tmp_path / f"{name}.onnx").run(None, {"x": x}) for name in ("before", "after"))
    assert np.array_equal(before[0], after[0])
