"""Stage `quantize`: graphs at a recipe's precision, with a record of what was quantized and what not."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stages.core import graphs, layout, params, patches, plan, progress
from stages.core.errors import UserError, did_you_mean, entrypoint, key_from
from stages.core.files import new_folder, write_json
from stages.core.graphs import Feeds, GraphSet
from stages.core.params import (
    BFloat16Recipe,
    DynamicRecipe,
    Float16Recipe,
    Params,
    Recipe,
    StaticRecipe,
)
from stages.core.plan import QuantizedGraph
from stages.corpora import manifest
from stages.quantization import calibration

if TYPE_CHECKING:
    import onnx

Record = dict[str, dict[str, str]]
BF16_OPSET = 22  # the first in which Conv and Sin have it


def quantize(source: Path, place: Path, recipe: Recipe, feeds: Sequence[Feeds] = ()) -> Record:
    """Write the graph of `source` to `place` at the recipe's precision.

    feeds: what the graph is given in use, where it `needs_feeds`.

    Returns:
        `quantized`: node names to what they became; `kept`: node names to why they stayed, for
        the nodes that carry weights.

    Raises:
        UserError: the result is not valid ONNX.
    """
    import onnx

    with tempfile.TemporaryDirectory(dir=place.parent) as scratch:
        smoothed = _smoothed(source, Path(scratch), recipe, feeds)
        before = onnx.load(smoothed, load_external_data=False)
        if isinstance(recipe, DynamicRecipe):
            _dynamic(_with_tables(smoothed, Path(scratch), recipe), place, recipe)
        elif isinstance(recipe, StaticRecipe):
            _static(_with_tables(smoothed, Path(scratch), recipe), place, recipe, feeds)
        elif isinstance(recipe, Float16Recipe):
            _float16(onnx.load(smoothed), place, recipe)
        else:
            _bfloat16(onnx.load(smoothed), place, recipe)
    record = _record(before, onnx.load(place, load_external_data=False), recipe)
    try:
        onnx.checker.check_model(place, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as e:
        raise UserError(f"{source}: the quantized graph is not valid ONNX: {e}") from e
    return record


def check_effect(folder: Path, records: Mapping[str, Record]) -> None:
    """A recipe quantized something in one of a folder's graphs, whose records these are.

    Raises:
        UserError: it did not.
    """
    if not any(record["quantized"] for record in records.values()):
        kept = {node: why for record in records.values() for node, why in record["kept"].items()}
        raise UserError(f"{folder}: the recipe quantized no node; kept: {kept or 'none has weights'}")


def needs_feeds(recipe: Recipe, folder: Path, graph_set: GraphSet) -> bool:
    """Whether a recipe asks what the activations of these graphs are."""
    from stages.rewrites import smooth

    if isinstance(recipe, DynamicRecipe) and recipe.smooth is not None:
        return any(smooth.readers(graphs.load(folder / graph.file)) for graph in graph_set.graphs.values())
    return isinstance(recipe, StaticRecipe)


def check_excluded(recipe: Recipe, folder: Path, graph_set: GraphSet) -> None:
    """Every node that a recipe excludes is in a graph of the set.

    Raises:
        UserError: one is not.
    """
    import onnx

    if not (excluded := getattr(recipe, "exclude_nodes", [])):
        return
    models = [onnx.load(folder / graph.file, load_external_data=False) for graph in graph_set.graphs.values()]
    names = {node.name for model in models for node in model.graph.node}
    for name in excluded:
        if name not in names:
            raise UserError(f"exclude_nodes: {folder} has no node {name!r}; {did_you_mean(name, names)}")


def _dynamic(source: Path, place: Path, recipe: DynamicRecipe) -> None:
    """ONNX Runtime's dynamic quantization: INT8 weights, uint8 activations scaled at run time."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    own = patches.weights_scaled_by(_finest) if _finds_scales(recipe) else nullcontext()
    with patches.quantizers(), own:
        quantize_dynamic(
            source,
            place,
            op_types_to_quantize=recipe.op_types,
            per_channel=recipe.per_channel,
            reduce_range=recipe.reduce_range,
            weight_type=QuantType[recipe.weight_type],
            # Of a Gemm the library makes a MatMul with a name of its own before it looks for what is excluded.
            nodes_to_exclude=[
                *(name + made for name in recipe.exclude_nodes for made in ("", "_MatMul")),
                *_narrow(onnx.load(source, load_external_data=False), recipe),
            ],
            extra_options={"MatMulConstBOnly": True},
        )


def _static(source: Path, place: Path, recipe: StaticRecipe, feeds: Sequence[Feeds]) -> None:
    """ONNX Runtime's static quantization, in QuantizeLinear and DequantizeLinear pairs."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # the library has no types
        def set_range(self, start_index: int, end_index: int) -> None:
            self.left = iter(feeds[start_index:end_index])

        def get_next(self) -> Feeds | None:
            return next(self.left, None)

        def __len__(self) -> int:
            return len(feeds)

    methods = {"minmax": "MinMax", "percentile": "Percentile", "entropy": "Entropy"}
    before = onnx.load(source, load_external_data=False)
    with patches.quantizers():
        quantize_static(
            source,
            place,
            Reader(),
            op_types_to_quantize=recipe.op_types,
            per_channel=recipe.per_channel,
            reduce_range=recipe.reduce_range,
            activation_type=QuantType[recipe.activation_type],
            weight_type=QuantType[recipe.weight_type],
            nodes_to_exclude=[*recipe.exclude_nodes, *_narrow(before, recipe)],
            calibrate_method=CalibrationMethod[methods[recipe.calibration]],
            extra_options={
                "MatMulConstBOnly": True,
                "TensorQuantOverrides": _overrides(before, source.parent) if _finds_scales(recipe) else {},
                "ActivationSymmetric": recipe.symmetric,
                "QuantizeBias": not recipe.symmetric,  # as INT32, of which TensorRT knows nothing
                "CalibPercentile": recipe.percentile,
                "CalibStridedMinMax": 1,  # input by input, with any method: they have different lengths
            },
        )


def _narrow(model: onnx.ModelProto, recipe: DynamicRecipe | StaticRecipe) -> list[str]:
    """The MatMuls with fewer outputs than the recipe quantizes: fp32 costs them nothing."""
    outputs = {i.name: i.dims[-1] for i in model.graph.initializer if len(i.dims) == 2}
    least = recipe.min_outputs
    return [n.name for n in model.graph.node if n.op_type == "MatMul" and outputs.get(n.input[1], least) < least]


def _finds_scales(recipe: DynamicRecipe | StaticRecipe) -> bool:
    """Whether the scales of weights are `_finest`: the library's own `reduce_range` halves all weights instead."""
    return recipe.reduce_range and recipe.per_channel and recipe.weight_type == "QInt8"


def _finest(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """For each column of a weight (inputs, outputs) the finest scale at which no CPU's sums overflow, (outputs,).

    Without VNNI, ONNX Runtime adds the products of two uint8 activations with two neighbouring int8 weights in 16 bits:
    255 (q0 + q1) fits while |q0 + q1| <= 128. Half of 8 bits for every weight would do; but two large ones of one sign
    are seldom neighbours. 127 leaves room for the rounding of both.
    """
    pairs = np.abs(weight[: len(weight) // 2 * 2 : 2] + weight[1::2])
    largest = np.maximum(np.abs(weight).max(axis=0), pairs.max(axis=0, initial=0))
    return np.where(largest > 0, largest / np.float32(127), np.float32(1))


def _overrides(model: onnx.ModelProto, folder: Path) -> dict[str, list[dict[str, Any]]]:
    """`_finest` as ONNX Runtime is told of it."""
    import onnx

    weights = {i.name: i for i in model.graph.initializer if i.data_type == onnx.TensorProto.FLOAT and len(i.dims) == 2}
    scales = {}
    for node in model.graph.node:
        if node.op_type in {"MatMul", "Gemm"} and node.input[1] in weights:
            channels = 0 if any(a.name == "transB" and a.i for a in node.attribute) else 1
            weight = onnx.numpy_helper.to_array(weights[node.input[1]], str(folder))
            scales[node.input[1]] = [
                {"axis": channels, "scale": scale, "zero_point": np.int8(0)}
                for scale in _finest(weight if channels else weight.T)
            ]
    return scales


def _smoothed(source: Path, scratch: Path, recipe: Recipe, feeds: Sequence[Feeds]) -> Path:
    """A copy of the graph, with the outliers of its activations moved into weights if the recipe says so.

    A copy, because the libraries want all weights beside it, and put files of their own there.
    """
    from stages.rewrites import smooth

    if not isinstance(recipe, DynamicRecipe | StaticRecipe) or recipe.smooth is None:
        return graphs.copy(source, scratch)
    model, shared = graphs.load(source), graphs.weights_folder(source)
    if not (names := smooth.readers(model)):
        return graphs.copy(source, scratch)
    if not feeds:
        raise ValueError(f"{source}: smoothing needs what the graph is fed")
    observed = model.clone()
    observed.graph.outputs.extend(value for node in observed.graph for value in node.outputs if value.name in names)
    graphs.save(observed, scratch / f"observed.{source.name}", shared)
    largest = _largest(scratch / f"observed.{source.name}", shared, list(names), feeds)
    graphs.save(smooth.rewrite(model, largest, recipe.smooth)[0], scratch / source.name)
    return scratch / source.name


def _with_tables(source: Path, scratch: Path, recipe: DynamicRecipe | StaticRecipe) -> Path:
    """The graph with its large tables of embeddings in INT8, if the recipe says so and it has any.

    Before the rest: the library loads all that a graph holds, several times over.
    """
    import onnx_ir as ir

    from stages.rewrites import embedding

    if recipe.embedding_rows is None:
        return source
    model, count = embedding.rewrite(ir.load(source), recipe.embedding_rows, recipe.exclude_nodes)
    if count == 0:
        return source
    (scratch / "tables").mkdir()
    graphs.save(model, scratch / "tables" / source.name)
    return scratch / "tables" / source.name


def _largest(
    place: Path, weights: Path, names: Sequence[str], feeds: Sequence[Feeds]
) -> dict[str, NDArray[np.float32]]:
    """The largest absolute value over all feeds of each channel of outputs (..., channels) of a graph, by name."""
    from stages.runtimes import onnxruntime

    session, largest = onnxruntime.session(place, weights=weights), dict.fromkeys(names, np.zeros(1, np.float32))
    for fed in progress.each(feeds, "inputs heard for their largest values"):
        for name, value in zip(names, session.run(names, fed), strict=True):
            seen = np.abs(value).reshape(-1, value.shape[-1]).max(axis=0, initial=0)
            largest[name] = np.maximum(largest[name], seen)
    return largest


def _record(before: onnx.ModelProto, after: onnx.ModelProto, recipe: Recipe) -> Record:
    """What became of the nodes: with fp16 and bf16 of all, with INT8 of those that carry weights."""
    record: Record = {"quantized": {}, "kept": {}}
    if isinstance(recipe, Float16Recipe | BFloat16Recipe):
        for node in before.graph.node:
            kept = node.op_type in recipe.keep_fp32_ops
            said = f"{node.op_type}: in keep_fp32_ops" if kept else f"{node.op_type} -> {recipe.kind}"
            record["kept" if kept else "quantized"][node.name] = said
        return record
    import onnx

    matrices = [i for i in before.graph.initializer if i.data_type == onnx.TensorProto.FLOAT and len(i.dims) > 1]
    weights = {i.name: i for i in matrices}
    inputs, narrow = {node.name: list(node.input) for node in after.graph.node}, _narrow(before, recipe)
    for node in before.graph.node:
        carries = [name for name in node.input if name in weights]
        as_matmul = f"{node.name}_MatMul" in inputs  # a Gemm that was not quantized
        if not as_matmul and (node.name not in inputs or (carries and inputs[node.name] != list(node.input))):
            by_row = node.op_type == "Gather" and recipe.embedding_rows is not None
            record["quantized"][node.name] = f"{node.op_type} -> {'QInt8 by row' if by_row else recipe.weight_type}"
        elif node.name in recipe.exclude_nodes:
            record["kept"][node.name] = f"{node.op_type}: in exclude_nodes"
        elif node.name in narrow:
            record["kept"][node.name] = f"{node.op_type}: fewer than {recipe.min_outputs} outputs"
        elif node.op_type in recipe.op_types:
            record["kept"][node.name] = f"{node.op_type}: no constant weight"
        elif carries and node.op_type == "Gather" and (rows := recipe.embedding_rows) is not None:
            few = weights[carries[0]].dims[0] < rows
            why = f"fewer than {rows} rows" if few else "its table is not only looked up by row"
            record["kept"][node.name] = f"{node.op_type}: {why}"
        elif carries:
            record["kept"][node.name] = f"{node.op_type}: not in op_types"
    return record


def _float16(model: onnx.ModelProto, place: Path, recipe: Float16Recipe) -> None:
    """fp16 between fp32 inputs and outputs, for strongly typed TensorRT networks."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    # Its own way to infer shapes ends at 2 GB of weights.
    settings = {"keep_io_types": True, "op_block_list": recipe.keep_fp32_ops, "disable_shape_infer": True}
    half = OnnxModel(convert_float_to_float16(patches.with_shapes(model), **settings))
    half.topological_sort()  # the converter puts its casts behind the nodes that read them
    del half.model.graph.value_info[:]  # it says fp16 of constants that stay fp32
    onnx.save(half.model, place)


def _bfloat16(model: onnx.ModelProto, place: Path, recipe: BFloat16Recipe) -> None:
    """As fp16, with bf16 in its place: the range of fp32 at 8 bits of precision."""
    import onnx

    _float16(model, place, Float16Recipe(kind="float16", keep_fp32_ops=recipe.keep_fp32_ops))
    half, kinds = onnx.version_converter.convert_version(onnx.load(place), BF16_OPSET), onnx.TensorProto
    del half.graph.value_info[:]  # inferred as fp16
    for tensor in half.graph.initializer:
        _retype(tensor)
    for node in half.graph.node:
        for attribute in node.attribute:
            if attribute.name == "to" and attribute.i == kinds.FLOAT16:
                attribute.i = kinds.BFLOAT16
            elif attribute.HasField("t"):
                _retype(attribute.t)
    onnx.save(half, place)


def _retype(tensor: onnx.TensorProto) -> None:
    """Turn an fp16 tensor into bf16, in place."""
    import ml_dtypes
    import onnx

    if tensor.data_type == onnx.TensorProto.FLOAT16:
        values = onnx.numpy_helper.to_array(tensor).astype(ml_dtypes.bfloat16)
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))


def main(argv: Sequence[str]) -> None:
    """`python -m stages.quantize MODEL-VARIANT-RECIPE`."""
    p = params.load()
    lines = plan.derive(p).quantize
    line = lines[key_from(argv, "quantize", lines)]
    recipe = p.recipe(line.model, line.variant, line.recipe)
    origin = layout.graphs(line.model, line.variant, line.graph)
    graph_set = graphs.read(origin)
    check_excluded(recipe, origin, graph_set)
    feeds = _feeds(p, line, recipe, origin)
    with new_folder(layout.graphs(line.model, line.variant, line.recipe)) as folder:
        record = {}
        for name, graph in graph_set.graphs.items():
            with progress.phase(f"quantize {graph.file}"):
                record[name] = quantize(origin / graph.file, folder / graph.file, recipe, feeds.get(name, ()))
        check_effect(origin, record)
        graphs.write(folder, graph_set)
        write_json(folder / "quantize.json", record)
        before, after = graphs.size(origin), graphs.size(folder)
    nodes = sum(len(r["quantized"]) for r in record.values())
    print(f"{line.model} {line.variant} {line.recipe}: {nodes} nodes, {before} -> {after} bytes")


def _feeds(p: Params, line: QuantizedGraph, recipe: Recipe, origin: Path) -> Mapping[str, Sequence[Feeds]]:
    if isinstance(recipe, Float16Recipe | BFloat16Recipe) or not needs_feeds(recipe, origin, graphs.read(origin)):
        return {}
    family: Any = importlib.import_module(f"stages.models.{p.models[line.model].family}")
    recordings = manifest.read(layout.corpus(line.dataset), "calibration")
    return calibration.recorded(family, layout.checkpoint(line.model), origin, recordings, recipe.calibration_feeds)


if __name__ == "__main__":
    entrypoint(main)
