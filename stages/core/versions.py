"""The ONNX versions that a graph names: when it is written, the lowest ones in which it means the same.

A runtime refuses a file that names a newer version than its own, whatever is in it: ONNX Runtime 1.16, which FunASR's
server has on Windows, reads no IR 10, and torch's exporter writes that for any graph.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

WORKING_OPSET = 18  # of which the rewrites make operators
INITIALIZERS_APART = 4  # the first IR version in which a weight need not be an input too
SINCE = {  # the first IR version with a type, as onnx.proto says
    9: ("FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ"),
    10: ("INT4", "UINT4"),
    11: ("FLOAT4E2M1",),
    12: ("FLOAT8E8M0",),
    13: ("INT2", "UINT2"),
}


@contextmanager
def lowest(model: ir.Model) -> Iterator[None]:
    """Give a model, within the block, the lowest opsets and IR version in which it means the same.

    No operator is converted: an opset is lowered to the newest of the operators' own versions. What has functions or
    operators that ONNX does not know keeps the opset of their domain.
    """
    from onnx import helper

    before = dict(model.opset_imports), model.ir_version
    needed = _needed(model)
    model.opset_imports.update(needed)
    imports = [helper.make_opsetid(domain, version) for domain, version in model.opset_imports.items()]
    by_opset = helper.find_min_ir_version_for(imports, ignore_unknown=True)
    model.ir_version = max(by_opset, INITIALIZERS_APART, _find_types_version(model))
    try:
        yield
    finally:
        model.opset_imports.update(before[0])
        model.ir_version = before[1]


def lift(model: ir.Model) -> None:
    """Raise a model's standard opset to `WORKING_OPSET`, in place, if every operator is the same there."""
    import onnx

    found = model.opset_imports.get("", WORKING_OPSET)
    nodes = {node.op_type for node in model.graph.all_nodes() if not node.domain}
    if found < WORKING_OPSET and all(
        onnx.defs.has(op, WORKING_OPSET, "") and _since(op, found, "") == _since(op, WORKING_OPSET, "") for op in nodes
    ):
        model.opset_imports[""] = WORKING_OPSET


def _needed(model: ir.Model) -> dict[str, int]:
    """Return the newest version of an operator by domain, of the domains of which ONNX knows all that is used."""
    import onnx

    used: dict[str, set[str]] = {}
    for node in () if model.functions else model.graph.all_nodes():
        used.setdefault(node.domain, set()).add(node.op_type)
    imports = model.opset_imports
    return {
        domain: max(_since(op, imports[domain], domain) for op in operators)
        for domain, operators in used.items()
        if domain in imports and all(onnx.defs.has(op, imports[domain], domain) for op in operators)
    }


def _since(operator: str, opset: int, domain: str) -> int:
    """Return the version in which an operator became what it is in an opset."""
    import onnx

    return int(onnx.defs.get_schema(operator, opset, domain).since_version)


def _find_types_version(model: ir.Model) -> int:
    """Return the first IR version that has all types of a model's values."""
    values = [*model.graph.inputs, *model.graph.initializers.values()]
    values += [output for node in model.graph.all_nodes() for output in node.outputs]
    types = {value.dtype.name for value in values if value.dtype is not None}
    return max((version for version, names in SINCE.items() if types.intersection(names)), default=0)
