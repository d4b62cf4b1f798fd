"""Triton's config.pbtxt of each model, made with tritonclient's own protocol buffers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stages.core.graphs import Graph, Tensor
from stages.core.parity import BATCH
from stages.serving.batches import can_pad, is_batched
from stages.serving.pipelines import AUDIO, CLOCK, TEXT, Pipeline, Tensors
from stages.serving.sequences import IDLE_SECONDS

DELAY_MICROSECONDS = 5000  # that a request waits for others to be run with
SEQUENCES = 64  # live at once on one instance
MOST_ROWS = 8  # of an ensemble's request
PLATFORMS = {
    "onnxruntime": "onnxruntime_onnx",
    "onnxruntime_cuda": "onnxruntime_onnx",
    "tensorrt": "tensorrt_plan",
}
DTYPES = {"float32": "TYPE_FP32", "int32": "TYPE_INT32", "int64": "TYPE_INT64", "bool": "TYPE_BOOL"}
NO_WARM_UP = """\
# No model_warmup: Triton hands states over within a sequence alone, and warms a model up before there can be one. Send
# a short sequence once the server is ready.
"""
CLOCKS: Tensors = {CLOCK: ("TYPE_FP64", [2])}


def network(name: str, graph: Graph, runtime: str, parameters: Mapping[str, str], *, native: bool) -> Any:
    """Configure one graph or engine.

    native: by Triton's own backend of the runtime, which keeps the states of sequences; else by the Python backend.
    """
    config = _config(name, parameters)
    if native:
        config.platform, config.default_model_filename = PLATFORMS[runtime], graph.file
    else:
        config.backend = "python"
    batched = is_batched(graph)
    config.max_batch_size = graph.axes[BATCH].max if batched else 0
    for tensors, declared in ((config.input, graph.inputs), (config.output, graph.outputs)):
        for tensor_name, tensor in declared.items():
            if tensor_name not in {*graph.states, *graph.states.values()}:
                _declare(tensors.add(), tensor_name, tensor, batched=batched)
    if not native and batched:
        for one in config.input:  # the backend pads; Triton's own batch equal lengths only
            one.allow_ragged_batch = can_pad(graph, one.name)
    if graph.states:
        _keep_states(config, graph, native=native, batched=batched)
    elif batched:
        _batch(config.dynamic_batching, config.max_batch_size)
    gpu = runtime != "onnxruntime"
    config.instance_group.add(count=1, kind="KIND_GPU" if gpu else "KIND_CPU")
    return config


def _keep_states(config: Any, graph: Graph, *, native: bool, batched: bool) -> None:
    batching = config.sequence_batching
    batching.max_sequence_idle_microseconds = round(IDLE_SECONDS * 1e6)
    batching.oldest.max_candidate_sequences = SEQUENCES
    batching.oldest.max_queue_delay_microseconds = DELAY_MICROSECONDS
    for name, fed in graph.states.items() if native else ():
        tensor = graph.inputs[name]
        described = {"data_type": DTYPES[tensor.dtype], "dims": _dims(tensor, batched=batched)}
        state = batching.state.add(input_name=name, output_name=fed, **described)
        state.initial_state.add(name=f"{name}_zero", zero_data=True, **described)


def warm_up(config: Any, graph: Graph, files: Mapping[str, str]) -> None:
    """Let Triton run a model once before it is ready; files: in the model's folder `warmup`, an input's bytes each.

    Not one with states, as NO_WARM_UP says: with a sample that brings them Triton 2.51 ends.
    """
    usual = graph.usual_sizes | {BATCH: 1}
    sample = config.model_warmup.add(name="usual", batch_size=1, count=1)
    for name, file in files.items():
        declared = next(one for one in config.input if one.name == name)
        sizes = [usual[size] if isinstance(size, str) else size for size in graph.inputs[name].shape]
        one = sample.inputs[name]
        one.data_type, one.input_data_file = declared.data_type, file
        one.dims.extend(sizes[1:] or [1] if config.max_batch_size else sizes)


def pipeline(name: str, described: Pipeline, parameters: Mapping[str, str]) -> Any:
    """Configure a whole pipeline in the Python backend: a batch of one."""
    config = python(name, parameters, described.inputs, described.outputs, rows=1)
    for one in config.input:
        one.optional = one.name in described.optional
    if described.streams:
        config.sequence_batching.max_sequence_idle_microseconds = round(IDLE_SECONDS * 1e6)
        config.sequence_batching.oldest.max_candidate_sequences = SEQUENCES
    return config


def python(name: str, parameters: Mapping[str, str], inputs: Tensors, outputs: Tensors, rows: int) -> Any:
    """Configure a model in the Python backend; rows: the most of a batch."""
    config = _config(name, parameters)
    config.backend, config.max_batch_size = "python", rows
    for tensors, declared in ((config.input, inputs), (config.output, outputs)):
        for tensor_name, (dtype, dims) in declared.items():
            tensors.add(name=tensor_name, data_type=dtype, dims=dims)
    config.instance_group.add(count=1, kind="KIND_CPU")
    return config


def ensemble(name: str, graph: Graph, parameters: Mapping[str, str]) -> list[Any]:
    """Configure features, network and decoding as one model, and the two that stand around the network `<name>_model`.

    The decoding gets what the network got and gave, and the clock of the request.
    """
    rows = min(MOST_ROWS, graph.axes[BATCH].max)
    between = {each: _tensor(tensor) for each, tensor in graph.inputs.items()}
    after = {each: _tensor(tensor) for each, tensor in graph.outputs.items()}
    features = python(f"{name}_features", {**parameters, "kind": "features"}, AUDIO, {**between, **CLOCKS}, rows)
    inputs = {**between, **after, **CLOCKS}
    decoding = python(f"{name}_decoding", {**parameters, "kind": "decoding"}, inputs, TEXT, rows)
    _flatten(features.output, graph)
    _flatten(decoding.input, graph)
    whole = python(name, parameters, AUDIO, TEXT, rows)
    whole.ClearField("backend")
    whole.ClearField("instance_group")
    whole.platform = "ensemble"
    for step, takes, gives in (
        (features.name, AUDIO, {**between, **CLOCKS}),
        (f"{name}_model", between, after),
        (decoding.name, inputs, TEXT),
    ):
        one = whole.ensemble_scheduling.step.add(model_name=step, model_version=-1)
        one.input_map.update({each: each for each in takes})
        one.output_map.update({each: each for each in gives})
    return [features, decoding, whole]


def _config(name: str, parameters: Mapping[str, str]) -> Any:
    from tritonclient.grpc import model_config_pb2

    config = model_config_pb2.ModelConfig(name=name)
    for key, value in parameters.items():
        config.parameters[key].string_value = value
    return config


def _declare(place: Any, name: str, tensor: Tensor, *, batched: bool) -> None:
    place.name, place.data_type = name, DTYPES[tensor.dtype]
    dims = _dims(tensor, batched=batched)
    place.dims.extend(dims or [1])
    if not dims:
        place.reshape.SetInParent()  # to no dimension: what the graph has is the batch's alone


def _dims(tensor: Tensor, *, batched: bool) -> list[int]:
    return [size if isinstance(size, int) else -1 for size in tensor.shape[1 if batched else 0 :]]


def _tensor(tensor: Tensor) -> tuple[str, list[int]]:
    return DTYPES[tensor.dtype], _dims(tensor, batched=True) or [1]


def _flatten(places: Any, graph: Graph) -> None:
    """Mark tensors of a batch's own dimension alone, as `_declare` does."""
    declared = {**graph.inputs, **graph.outputs}
    for place in places:
        if place.name in declared and not _dims(declared[place.name], batched=True):
            place.reshape.SetInParent()


def _batch(batching: Any, most: int) -> None:
    batching.preferred_batch_size.extend(size for size in (most // 2, most) if size > 0)
    batching.max_queue_delay_microseconds = DELAY_MICROSECONDS
