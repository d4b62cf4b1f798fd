"""The model repository for Triton's own backends: held against the graphs, and run by Triton itself.

The Triton of the wheel lacks the backend of ONNX Runtime. Where TRITON_ONNXRUNTIME names a folder with it, it runs the
graphs; else the Python backend does by STAND_IN, with a config.pbtxt in which nothing but the backend differs. States
of a sequence Triton hands to the Python backend for its first request alone, so that the rest is kept there.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from google.protobuf import text_format
from tritonclient.grpc import aio, model_config_pb2

from benchmarks import load
from serving.client import PIECE, Client
from stages import models
from stages.core import graphs
from stages.core.errors import UserError
from stages.core.graphs import Feeds, Graph
from stages.core.parity import BATCH, Network
from stages.corpora import manifest
from stages.corpora.manifest import Recording
from stages.models import fsmn_vad
from stages.serving import repository, server
from stages.serving.batches import is_batched
from tests.extras import triton_server as triton

BACKEND = os.environ.get("TRITON_ONNXRUNTIME")
STAND_IN = """
import json
from pathlib import Path

import numpy
import onnxruntime
import triton_python_backend_utils as pb


class TritonPythonModel:
    def initialize(self, args):
        states = json.loads(args["model_config"]).get("sequence_batching", {}).get("state", [])
        self.states = {one["input_name"]: one["output_name"] for one in states}
        self.kept = {}
        [graph] = (Path(args["model_repository"]) / args["model_version"]).glob("*.onnx")
        self.session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        starts = request.flags() & pb.TRITONSERVER_REQUEST_FLAG_SEQUENCE_START
        feeds = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        if self.states and not starts:
            feeds |= self.kept[request.correlation_id()]
        names = [output.name for output in self.session.get_outputs()]
        outputs = dict(zip(names, self.session.run(names, feeds)))
        self.kept[request.correlation_id()] = {name: outputs.pop(fed) for name, fed in self.states.items()}
        return pb.InferenceResponse([pb.Tensor(name, array) for name, array in outputs.items()])
"""
DTYPES = {"tensor(float)": "TYPE_FP32", "tensor(int32)": "TYPE_INT32", "tensor(int64)": "TYPE_INT64"}
Ask = Callable[[str, str], Client]
Declared = dict[str, tuple[str, list[int]]]


def read_config(folder: Path) -> Any:
    return text_format.Parse((folder / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())


@pytest.fixture(scope="module")
def written(released: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("native") / "repository"
    repository.write([repository.read_release(folder) for folder in released.values()], place, native=True)
    return place


@pytest.fixture(scope="module")
def ports() -> server.Ports:
    return triton.free_ports()


@pytest.fixture(scope="module")
def served(written: Path, ports: server.Ports, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Triton, ready, with the graphs in its own backend or in the stand-in for it."""
    place = tmp_path_factory.mktemp("triton")
    shutil.copytree(written, place / "repository")
    if not BACKEND:
        for folder in (place / "repository").iterdir():
            stand_in(folder)
    with triton.running(place / "repository", ports, place / "log", Path(BACKEND) if BACKEND else None):
        yield


def stand_in(folder: Path) -> None:
    config = read_config(folder)
    if config.platform == "onnxruntime_onnx":
        config.backend = "python"
        config.ClearField("platform")
        config.ClearField("default_model_filename")
        (folder / "config.pbtxt").write_text(text_format.MessageToString(config))
        (folder / "1" / "model.py").write_text(STAND_IN)


@pytest.fixture
def connect(served: None, ports: server.Ports) -> Iterator[Ask]:  # noqa: ARG001
    """Connect to a model over a protocol."""
    with ExitStack() as stack:
        yield lambda protocol, model: stack.enter_context(
            Client(protocol, f"127.0.0.1:{ports.http if protocol == 'http' else ports.grpc}", model)
        )


class Remote:
    """A network that is a graph in Triton, which keeps the states of a sequence; what is fed back here is a mark."""

    def __init__(self, client: Client, graph: Graph, sequence: int = 0) -> None:
        self.client, self.graph, self.sequence = client, graph, sequence

    def __call__(self, feeds: Feeds) -> Feeds:
        states = self.graph.states
        place = {"sequence_id": self.sequence, "sequence_start": not any(feeds[name].any() for name in states)}
        batched = is_batched(self.graph)
        tensors = {n: a[:, None] if batched and a.ndim == 1 else a for n, a in feeds.items() if n not in states}
        outputs = self.client.ask(tensors, **place if states else {})
        shapes = {name: len(tensor.shape) for name, tensor in self.graph.outputs.items()}
        outputs = {name: array.reshape(array.shape[: shapes[name]]).copy() for name, array in outputs.items()}
        return outputs | {fed: np.ones(1, np.float32) for fed in states.values()}


# The files


def declared(config: Any) -> tuple[Declared, Declared]:
    """Read the inputs and the outputs that a graph must have for a configuration, with the batch and the states."""
    batch = [-1] if config.max_batch_size else []

    def shape(one: Any) -> tuple[str, list[int]]:
        dims = one.reshape.shape if one.HasField("reshape") else one.dims
        return model_config_pb2.DataType.Name(one.data_type), [*batch, *dims]

    states = config.sequence_batching.state
    return (
        {one.name: shape(one) for one in config.input} | {one.input_name: shape_of_state(one, batch) for one in states},
        {one.name: shape(one) for one in config.output}
        | {one.output_name: shape_of_state(one, batch) for one in states},
    )


def shape_of_state(state: Any, batch: list[int]) -> tuple[str, list[int]]:
    [initial] = state.initial_state
    assert initial.zero_data
    assert (initial.data_type, list(initial.dims)) == (state.data_type, list(state.dims))
    assert -1 not in state.dims  # zeros need a size
    return model_config_pb2.DataType.Name(state.data_type), [*batch, *state.dims]


def found(tensors: list[Any]) -> Declared:
    return {
        one.name: (DTYPES[one.type], [size if isinstance(size, int) else -1 for size in one.shape]) for one in tensors
    }


@pytest.mark.parametrize("runtime", ["onnxruntime", "tensorrt"])
@pytest.mark.parametrize("family", triton.FAMILIES)
def test_a_configuration_declares_what_its_graph_has(
    released: dict[str, Path], tmp_path: Path, family: str, runtime: str
):
    folder, place = tmp_path / "release", tmp_path / "repository"
    shutil.copytree(released[family], folder)
    triton.write_statement(folder, family, runtime)
    repository.write([repository.read_release(folder)], place, native=True)
    for name, graph in graphs.read(folder).graphs.items():
        config = read_config(place / f"{family}_{name}")
        assert config.platform == {"onnxruntime": "onnxruntime_onnx", "tensorrt": "tensorrt_plan"}[runtime]
        graph_file = place / f"{family}_{name}" / "1" / config.default_model_filename
        session = onnxruntime.InferenceSession(graph_file, providers=["CPUExecutionProvider"])
        assert declared(config) == (found(session.get_inputs()), found(session.get_outputs()))
        assert len(config.sequence_batching.state) == len(graph.states)
        assert bool(config.model_warmup) == (not graph.states)
        assert (place / config.name / "config.pbtxt").read_text().startswith("# No model_warmup") == bool(graph.states)


def test_every_tensor_of_an_ensemble_is_one_that_a_step_before_gives(written: Path):
    for folder in written.iterdir():
        config = read_config(folder)
        if config.platform != "ensemble":
            continue
        known = {one.name: describe_tensor(one) for one in config.input}
        for step in config.ensemble_scheduling.step:
            taken = read_config(written / step.model_name)
            assert {name: known[step.input_map[name]] for name in step.input_map} == {
                one.name: describe_tensor(one) for one in taken.input
            }
            known |= {step.output_map[one.name]: describe_tensor(one) for one in taken.output}
            assert set(step.output_map) == {one.name for one in taken.output}
        assert {one.name: known[one.name] for one in config.output} == {
            one.name: describe_tensor(one) for one in config.output
        }


def describe_tensor(tensor: Any) -> tuple[int, list[int]]:
    return tensor.data_type, list(tensor.dims)


# What Triton makes of them


GRAPHS = {  # those without states
    "campplus": ["model"],
    "ct_transformer": ["model"],
    "emotion2vec": ["model"],
    "paraformer": ["model"],
    "paraformer_streaming": ["encoder"],
    "seaco_paraformer": ["model", "bias_encoder"],
    "sensevoice": ["model"],
}


@pytest.mark.parametrize(("family", "name"), [(family, name) for family, names in GRAPHS.items() for name in names])
def test_a_row_of_a_padded_batch_gets_what_it_gets_alone_here(
    connect: Ask, released: dict[str, Path], family: str, name: str
):
    graph_set, networks = triton.artifact(released[family])
    graph = graph_set.graphs[name]
    sizes = graph.usual_sizes | ({BATCH: 3} if is_batched(graph) else {})
    feeds = graphs.example_feeds(graph, sizes, seed=1)
    together = Remote(connect("grpc", f"{family}_{name}"), graph)(feeds)
    for row in range(3) if is_batched(graph) else [None]:
        alone = feeds if row is None else cut(graph, feeds, row)
        for output, expected in networks[name](alone).items():
            answer = together[output] if row is None else together[output][row : row + 1]
            answer = answer[tuple(slice(size) for size in expected.shape)]
            assert np.allclose(answer, expected, atol=2e-4 * max(1, np.abs(expected).max())), output


def cut(graph: Graph, feeds: Feeds, row: int) -> Feeds:
    """Take one row of a batch without its padding."""
    lengths = {graph.inputs[name].length_of: int(a[row]) for name, a in feeds.items() if graph.inputs[name].length_of}
    axes = {name: [lengths.get(str(axis)) for axis in graph.inputs[name].shape[1:]] for name in feeds}
    return {name: array[(slice(row, row + 1), *map(slice, axes[name]))] for name, array in feeds.items()}


@pytest.mark.parametrize(("family", "name"), [("fsmn_vad", "model"), ("paraformer_streaming", "decoder")])
def test_states_of_interleaved_sequences_begin_at_zero_and_are_carried(
    connect: Ask, released: dict[str, Path], family: str, name: str
):
    graph_set, networks = triton.artifact(released[family])
    graph, client = graph_set.graphs[name], connect("grpc", f"{family}_{name}")
    ours: dict[int, Mapping[str, Any]] = {41: {}, 42: {}}
    theirs: dict[int, Mapping[str, Any]] = {41: {}, 42: {}}
    for step, sequence in itertools.product(range(3), ours):
        sizes = {axis: each.opt + step + sequence % 2 for axis, each in graph.axes.items()} | {BATCH: 1}
        feeds = graphs.example_feeds(graph, sizes, seed=step + sequence)
        here, there = (
            network(feeds | dict(states[sequence]))
            for network, states in ((networks[name], ours), (Remote(client, graph, sequence), theirs))
        )
        for states, outputs in ((ours, here), (theirs, there)):
            states[sequence] = {each: outputs[fed] for each, fed in graph.states.items()}
        assert np.allclose(there["logits"], here["logits"], atol=1e-4)
    assert not np.allclose(networks[name](feeds)["logits"], here["logits"], atol=1e-4)


def test_a_recording_that_is_streamed_gives_the_text_of_streaming_here(
    connect: Ask, released: dict[str, Path], spoken: list[Recording]
):
    folder = released["paraformer_streaming"]
    graph_set, networks = triton.artifact(folder)
    load_stream = models.STREAMED.load("paraformer_streaming").load_stream
    for number, one in enumerate(spoken[:2], 51):
        remote: dict[str, Network] = {
            name: Remote(connect("grpc", f"paraformer_streaming_{name}"), graph, number)
            for name, graph in graph_set.graphs.items()
        }
        audio = one.samples()
        theirs, ours = (stream(load_stream(folder, (graph_set, each)), audio) for each in (remote, networks))
        assert theirs == ours
        assert any(ours)


def stream(push: Callable[..., str], audio: np.ndarray) -> list[str]:
    cache: dict[str, Any] = {}
    starts = range(0, len(audio), PIECE)
    return [push(audio[start : start + PIECE], cache, start == starts[-1]) for start in starts]


def test_speech_is_detected_as_it_arrives_as_here(connect: Ask, released: dict[str, Path], tiny_corpus: Path):
    graph_set, networks = triton.artifact(released["fsmn_vad"])
    graph, [one, *_] = graph_set.graphs["model"], manifest.read(tiny_corpus, "evaluation")
    remote: dict[str, Network] = {"model": Remote(connect("grpc", "fsmn_vad_model"), graph, 61)}
    theirs, ours = (
        list(fsmn_vad.load_streaming_detector(released["fsmn_vad"], (graph_set, each))(one.samples()))
        for each in (remote, networks)
    )
    assert theirs == ours
    assert any(events for _, events in ours)


@pytest.mark.parametrize("family", sorted(models.SPLITTABLE))
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_an_ensemble_around_a_native_network_transcribes_as_here(
    connect: Ask, released: dict[str, Path], spoken: list[Recording], protocol: str, family: str
):
    recognize = models.RECOGNIZERS.load(family).load_recognizer(released[family], triton.artifact(released[family]))
    ours = [recognize(one.samples()) for one in spoken]
    client = connect(protocol, family)
    theirs = [client.recognize(one.samples())["TRANSCRIPTS"][0, 0].decode() for one in spoken]
    assert theirs == [outcome.text for outcome in ours]
    assert all(theirs)


def test_recordings_at_once_get_their_own_answers(connect: Ask, ports: server.Ports, spoken: list[Recording]):
    client, audio = connect("grpc", "paraformer"), [one.samples() for one in spoken] * 3
    expected = [client.recognize(one)["TRANSCRIPTS"][0, 0] for one in audio]

    async def ask() -> list[Any]:
        async with aio.InferenceServerClient(f"127.0.0.1:{ports.grpc}") as together:
            return await asyncio.gather(*(together.infer("paraformer", load.audio(one)) for one in audio))

    answers = [each.as_numpy("TRANSCRIPTS")[0, 0] for each in asyncio.run(ask())]
    assert answers == expected
    runs, rows = (
        triton.count(ports, f"nv_inference_{name}", model="paraformer_model") for name in ("exec_count", "count")
    )
    assert runs < rows  # those of equal length were run as one


# What is not of ONNX Runtime, and what is refused


def test_an_engine_is_a_plan_of_tensorrt_in_the_same_ensemble(released: dict[str, Path], tmp_path: Path):
    folder = tmp_path / "release"
    shutil.copytree(released["paraformer"], folder)
    triton.write_statement(folder, "paraformer", "tensorrt")
    names = repository.write([repository.read_release(folder)], tmp_path / "repository", native=True)
    assert names == ["paraformer", "paraformer_decoding", "paraformer_features", "paraformer_model"]
    config = (tmp_path / "repository" / "paraformer_model" / "config.pbtxt").read_text()
    assert 'platform: "tensorrt_plan"' in config
    assert "KIND_GPU" in config


@pytest.mark.parametrize(
    ("runtime", "words"),
    [
        pytest.param("tensorrt", "needs Triton's own backend", id="no backend here"),
        pytest.param("tensorrt_rtx", "wanted one that Triton has", id="no backend anywhere"),
    ],
)
def test_what_cannot_be_served_is_refused(released: dict[str, Path], tmp_path: Path, runtime: str, words: str):
    folder = tmp_path / "release"
    shutil.copytree(released["paraformer"], folder)
    triton.write_statement(folder, "paraformer", runtime)
    with pytest.raises(UserError, match=words):
        repository.write([repository.read_release(folder)], tmp_path / "repository", native=False)
    assert not (tmp_path / "repository").exists()


def test_two_builds_of_a_model_are_refused(released: dict[str, Path], tmp_path: Path):
    release = repository.read_release(released["paraformer"])
    with pytest.raises(UserError, match="two builds of paraformer"):
        repository.write([release, release], tmp_path / "repository", native=False)
