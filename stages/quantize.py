"""Stage `quantize`: graphs at a recipe's precision, with a record of what was quantized and what not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stages.core import graphs, layout, params
from stages.core.errors import UserError, did_you_mean, entrypoint, key_from
from stages.core.files import new_folder, write_json
from stages.core.params import DynamicRecipe, Float16Recipe, Recipe

if TYPE_CHECKING:
    import onnx


def quantize(source: Path, place: Path, recipe: Recipe) -> dict[str, dict[str, str]]:
    """Write the graph of `source` to `place` at the recipe's precision.

    Returns:
        `quantized`: node names to what they became; `kept`: node names to why they stayed, for
        the nodes that carry weights.

    Raises:
        UserError: the recipe excludes a node that the graph does not have, or quantizes nothing,
            or the result is not valid ONNX.
    """
    import onnx

    before = onnx.load(source)
    if isinstance(recipe, DynamicRecipe):
        _check_excluded(recipe, before)
        _dynamic(source, place, recipe)
        record = _dynamic_record(before, onnx.load(place), recipe)
    else:
        record = _float16(before, place, recipe)
    if not record["quantized"]:
        raise UserError(f"{source}: the recipe quantized no node of {len(before.graph.node)}; kept: {record['kept']}")
    try:
        onnx.checker.check_model(place, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as e:
        raise UserError(f"{source}: the quantized graph is not valid ONNX: {e}") from e
    return record


def _check_excluded(recipe: DynamicRecipe, model: onnx.ModelProto) -> None:
    names = {node.name for node in model.graph.node}
    for name in recipe.exclude_nodes:
        if name not in names:
            raise UserError(f"exclude_nodes: the graph has no node {name!r}; {did_you_mean(name, names)}")


def _dynamic(source: Path, place: Path, recipe: DynamicRecipe) -> None:
    """ONNX Runtime's dynamic quantization: INT8 weights, uint8 activations scaled at run time."""
    import logging

    from onnxruntime.quantization import QuantType, quantize_dynamic

    logging.getLogger().setLevel(logging.ERROR)  # it advises pre-processing, which `simplify` has done
    quantize_dynamic(
        source,
        place,
        op_types_to_quantize=recipe.op_types,
        per_channel=recipe.per_channel,
        reduce_range=recipe.reduce_range,
        weight_type=QuantType[recipe.weight_type],
        nodes_to_exclude=recipe.exclude_nodes,
        extra_options={"MatMulConstBOnly": True},
    )


def _dynamic_record(
    before: onnx.ModelProto, after: onnx.ModelProto, recipe: DynamicRecipe
) -> dict[str, dict[str, str]]:
    import onnx

    weights = {i.name for i in before.graph.initializer if i.data_type == onnx.TensorProto.FLOAT and len(i.dims) > 1}
    left = {node.name for node in after.graph.node}
    record: dict[str, dict[str, str]] = {"quantized": {}, "kept": {}}
    for node in before.graph.node:
        carries = [name for name in node.input if name in weights]
        if node.name not in left:
            record["quantized"][node.name] = f"{node.op_type} -> {recipe.weight_type}"
        elif node.name in recipe.exclude_nodes:
            record["kept"][node.name] = f"{node.op_type}: in exclude_nodes"
        elif node.op_type in recipe.op_types:
            record["kept"][node.name] = f"{node.op_type}: no constant weight"
        elif carries:
            record["kept"][node.name] = f"{node.op_type}: not in op_types"
    return record


def _float16(model: onnx.ModelProto, place: Path, recipe: Float16Recipe) -> dict[str, dict[str, str]]:
    """fp16 between fp32 inputs and outputs, for strongly typed TensorRT networks."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    record: dict[str, dict[str, str]] = {"quantized": {}, "kept": {}}
    for node in model.graph.node:
        if node.op_type in recipe.keep_fp32_ops:
            record["kept"][node.name] = f"{node.op_type}: in keep_fp32_ops"
        else:
            record["quantized"][node.name] = f"{node.op_type} -> fp16"
    half = OnnxModel(convert_float_to_float16(model, keep_io_types=True, op_block_list=recipe.keep_fp32_ops))
    half.topological_sort()  # the converter puts its casts behind the nodes that read them
    onnx.save(half.model, place)
    return record


def main(argv: Sequence[str]) -> None:
    """`python -m stages.quantize MODEL-VARIANT-RECIPE`."""
    settings = params.load().quantize
    line = settings.graphs[key_from(argv, "quantize", settings.graphs)]
    origin = layout.graphs(line.model, line.variant, line.graph)
    graph_set = graphs.read(origin)
    with new_folder(layout.graphs(line.model, line.variant, line.recipe)) as folder:
        record = {
            name: quantize(origin / graph.file, folder / graph.file, settings.recipes[line.recipe])
            for name, graph in graph_set.graphs.items()
        }
        graphs.write(folder, graph_set)
        write_json(folder / "quantize.json", record)
        before, after = graphs.size(origin), graphs.size(folder)
    nodes = sum(len(r["quantized"]) for r in record.values())
    print(f"{line.model} {line.variant} {line.recipe}: {nodes} nodes, {before} -> {after} bytes")


if __name__ == "__main__":
    entrypoint(main)
