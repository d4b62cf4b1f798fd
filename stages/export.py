"""Stage `export`: torch modules to ONNX, checked against torch before anything is saved.

The modern exporter (`torch.export`) is used, with named arguments and `dynamic_shapes`: it is what
torch 2.9 and later default to, while the TorchScript exporter is deprecated and FunASR's own
`export`, which hands it `dynamic_axes` and `*args`, fails. It costs some seconds more per graph.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from stages import models
from stages.core import graphs, layout, params, parity, plan, progress
from stages.core.errors import UserError, entrypoint, from_library, key_from
from stages.core.files import new_folder, write_json
from stages.core.graphs import Graph, Tensor
from stages.core.parity import Network
from stages.core.patches.onnxscript import exporter
from stages.models.protocols import Family
from stages.models.shared.checkpoint import left_out, torch_networks
from stages.runtimes import onnxruntime

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir
    import torch


NO_METADATA: Mapping[str, str] = MappingProxyType({})


def export(
    module: torch.nn.Module, graph: Graph, place: Path, opset: int, metadata: Mapping[str, str] = NO_METADATA
) -> None:
    """Write one module to `place` as ONNX with the graph's names and dynamic axes, the same bytes each time.

    Of over 128 MiB of weights, the large ones go into a file beside it. metadata: for other programs, in the file.

    Raises:
        UserError: the exporter refuses the module.
    """
    import torch

    # An axis of size 1 would be taken for a constant.
    sizes = {name: min(max(2, axis.opt), axis.max) for name, axis in graph.axes.items()}
    feeds = graphs.example_feeds(graph, sizes, seed=0)
    axes = {name: torch.export.Dim(name, min=axis.min, max=axis.max) for name, axis in graph.axes.items()}
    dynamic = {
        name: {i: axes[d] for i, d in enumerate(t.shape) if isinstance(d, str)} or None
        for name, t in graph.inputs.items()
    }
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns that torchvision is not installed
    try:
        # Without gradients the graph is the same, a fifth sooner.
        with warnings.catch_warnings(), torch.no_grad(), exporter():
            warnings.simplefilter("ignore")  # of torch about itself
            program = torch.onnx.export(
                module.eval(),
                tuple(torch.from_numpy(feeds[name]) for name in graph.inputs),
                dynamo=True,
                input_names=list(graph.inputs),
                output_names=list(graph.outputs),
                opset_version=opset,
                dynamic_shapes=dynamic,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as e:
        raise UserError(f"torch {torch.__version__} could not export {graph.file}: {e}") from e
    model: ir.Model = program.model  # type: ignore[union-attr]  # None only without dynamo
    _drop_stack_traces(model)
    model.metadata_props.update(metadata)
    _name_output_axes(model, graph)
    graphs.save(model, place)


def _drop_stack_traces(model: ir.Model) -> None:
    """Drop the exporter's stack traces: they hold this machine's paths."""
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    for node in model.graph:
        node.metadata_props.clear()
        node.doc_string = None
        for output in node.outputs:
            output.metadata_props.clear()


def _name_output_axes(model: ir.Model, graph: Graph) -> None:
    """Name output axes that follow from the inputs as the graph declares them, not by torch's expressions."""
    import onnx_ir as ir

    for value, wanted in zip(model.graph.outputs, graph.outputs.values(), strict=True):
        if value.shape is not None and len(value.shape) == len(wanted.shape):
            names = [
                w if isinstance(w, str) and not isinstance(f, int) else f
                for f, w in zip(value.shape, wanted.shape, strict=True)
            ]
            value.shape = ir.Shape(names)


def check(place: Path, graph: Graph, reference: Network, tolerance: float) -> dict[str, float]:
    """Check that an exported file is valid, has the declared signature and computes what torch does.

    Returns:
        The differences from the torch network by kind of input, all within `tolerance`.

    Raises:
        UserError: not valid ONNX, other inputs or outputs than declared, or a difference too large.
    """
    import onnx

    with from_library(f"{graph.file} is not valid ONNX"):
        onnx.checker.check_model(place, full_check=True)
    model = graphs.load_proto(place)
    for kind, tensors, values in (
        ("inputs", graph.inputs, model.graph.input),
        ("outputs", graph.outputs, model.graph.output),
    ):
        found = {value.name: _declared(value) for value in values}
        wanted = {name: Tensor(dtype=tensor.dtype, shape=tensor.shape) for name, tensor in tensors.items()}
        if found != wanted:
            raise UserError(f"{graph.file} {kind}: found {found}, wanted {wanted}")
    del model
    differences = parity.largest_differences(graph, reference, onnxruntime.network(place, graph, prepacked=False))
    if why := parity.excess(differences, tolerance):
        raise UserError(f"{graph.file}, against torch: {why}")
    return differences


def _declared(value: onnx.ValueInfoProto) -> Tensor:
    import onnx

    tensor = value.type.tensor_type
    return Tensor(
        dtype=onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name,
        shape=[d.dim_param or d.dim_value for d in tensor.shape.dim],
    )


def export_variant(
    family: Family[Any],
    checkpoint: Path,
    folder: Path,
    *,
    opset: int,
    tolerance: float,
    metadata: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
) -> dict[str, dict[str, float]]:
    """Write every graph of a checkpoint into `folder` and return how far each is from torch.

    metadata: what other programs read in the file of each graph, as `stages.models.metadata` gives it.
    """
    import torch

    torch.set_num_threads(1)  # one thread: the sums, and so the differences on record, repeat
    with progress.phase("load the checkpoint"):
        model = family.load(checkpoint)
    graph_set, modules = family.graph_set(model), family.export_modules(model)
    networks = torch_networks(graph_set, modules)
    differences = {}
    for name, graph in graph_set.graphs.items():
        with progress.phase(f"export {graph.file}"):
            export(modules[name], graph, folder / graph.file, opset, metadata.get(name, NO_METADATA))
        with progress.phase(f"compare {graph.file} with torch"):
            differences[name] = check(folder / graph.file, graph, networks[name], tolerance)
    graphs.write(folder, graph_set)
    return differences


def main(argv: Sequence[str]) -> None:
    """Run `python -m stages.export MODEL-VARIANT`."""
    p = params.load()
    variants = plan.derive(p).variants
    line = variants[key_from(argv, "export", variants)]
    family_name = p.models[line.model].family
    family = models.load(family_name)
    with new_folder(layout.graphs(line.model, line.variant, "export")) as folder:
        checkpoint = layout.checkpoint(line.model, line.variant)
        differences = export_variant(
            family,
            checkpoint,
            folder,
            opset=p.export.opset,
            tolerance=p.parity.tolerance,
            metadata=models.metadata(family_name, checkpoint),
        )
        opsets = {name: graphs.opset(folder / graph.file) for name, graph in graphs.read(folder).graphs.items()}
        record = {"opset": opsets, "difference_from_torch": differences}
        write_json(folder / "export.json", record | {"checkpoint": left_out(family, checkpoint)})
    worst = max(d for by_input in differences.values() for d in by_input.values())
    versions = _describe_opsets(opsets, p)
    print(f"{line.model} {line.variant}: {len(differences)} graph(s), {versions}, within {worst:.1e} of torch")


def _describe_opsets(opsets: Mapping[str, int], p: params.Params) -> str:
    """Return the opsets that the graphs have, and where one is newer than the one asked for, that one."""
    found = " and ".join(str(opset) for opset in sorted(set(opsets.values())))
    asked = "" if max(opsets.values()) <= p.export.opset else f" (export.opset asks for {p.export.opset})"
    return f"opset {found}{asked}"


if __name__ == "__main__":
    entrypoint(main)
