"""A release is served by Triton itself, on loopback, and answers what the family answers here."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from tritonclient.grpc import aio
from tritonclient.utils import InferenceServerException

from benchmarks import load
from serving.client import PIECE, Answer, Client
from stages import models
from stages.core import graphs
from stages.corpora import manifest
from stages.corpora.manifest import Recording
from stages.models import emotion2vec, fsmn_vad, seaco_paraformer
from stages.serving import repository, server
from stages.serving.sequences import IDLE_SECONDS, Sequences
from tests.extras import triton_server as triton
from tests.workspace import ROOT

PROTOCOLS = pytest.mark.parametrize("protocol", ["http", "grpc"])
Folder = Callable[[str], Path]
Ask = Callable[[str, str], Client]


@pytest.fixture(scope="module")
def ports() -> server.Ports:
    return triton.free_ports()


@pytest.fixture(scope="module")
def served(released: dict[str, Path], ports: server.Ports, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Triton, ready, with all families."""
    place, log = tmp_path_factory.mktemp("triton") / "repository", tmp_path_factory.mktemp("log") / "log"
    repository.write([repository.read_release(folder) for folder in released.values()], place, native=False)
    with triton.running(place, ports, log):
        yield


@pytest.fixture
def connect(served: None, ports: server.Ports) -> Iterator[Ask]:  # noqa: ARG001
    """Connect to a model over a protocol."""
    with ExitStack() as stack:
        yield lambda protocol, model: stack.enter_context(
            Client(protocol, f"127.0.0.1:{ports.http if protocol == 'http' else ports.grpc}", model)
        )


def text(answer: Answer, name: str = "TRANSCRIPTS") -> str:
    found: str = answer[name].ravel()[0].decode()
    return found


# The answers


@pytest.mark.parametrize("family", sorted(models.SPLITTABLE))
@PROTOCOLS
def test_a_recording_is_transcribed_as_here(
    connect: Ask, released: dict[str, Path], spoken: list[Recording], protocol: str, family: str
):
    recognize = models.RECOGNIZERS.load(family).load_recognizer(released[family], triton.artifact(released[family]))
    ours = [recognize(one.samples()) for one in spoken]
    client = connect(protocol, family)
    assert [text(client.recognize(one.samples())) for one in spoken] == [outcome.text for outcome in ours]
    assert all(outcome.text for outcome in ours)


@pytest.mark.parametrize("family", sorted(models.SPLITTABLE))
@PROTOCOLS
def test_a_padded_batch_gives_what_single_requests_give(
    connect: Ask, spoken: list[Recording], protocol: str, family: str
):
    client, audio = connect(protocol, family), [one.samples() for one in spoken]
    assert len({len(one) for one in audio}) > 1
    padded = np.zeros((len(audio), max(map(len, audio))), np.float32)
    for row, one in zip(padded, audio, strict=True):
        row[: len(one)] = one
    together = client.ask({"WAV": padded, "WAV_LENS": np.array([[len(one)] for one in audio], np.int32)})
    assert list(together["TRANSCRIPTS"][:, 0]) == [client.recognize(one)["TRANSCRIPTS"][0, 0] for one in audio]


def test_a_graph_alone_answers_a_padded_batch(connect: Ask, released: dict[str, Path]):
    graph_set, networks = triton.artifact(released["paraformer"])
    feeds = graphs.example_feeds(graph_set.graphs["model"], {"batch": 3, "feats_length": 60}, seed=1)
    lengths = feeds["speech_lengths"]
    assert len(set(lengths)) == 3
    client = connect("grpc", "paraformer_model")
    found = client.ask({"speech": feeds["speech"], "speech_lengths": lengths[:, None]})
    assert list(found["token_num"].ravel()) == list(networks["model"](feeds)["token_num"])
    for row, length in enumerate(lengths):
        alone = {"speech": feeds["speech"][row : row + 1, :length], "speech_lengths": lengths[row : row + 1, None]}
        single = client.ask(alone)["logits"][0]
        assert np.allclose(found["logits"][row, : len(single)], single, atol=1e-4)


def runs_and_rows(ports: server.Ports, model: str) -> tuple[float, float]:
    runs, rows = (triton.count(ports, f"nv_inference_{name}", model=model) for name in ("exec_count", "count"))
    return runs, rows


def test_requests_of_unequal_lengths_at_once_get_their_own_answers(
    served: None,  # noqa: ARG001
    connect: Ask,
    ports: server.Ports,
    spoken: list[Recording],
):
    client = connect("grpc", "paraformer")
    expected = [client.recognize(one.samples())["TRANSCRIPTS"][0, 0] for one in spoken]
    runs, rows = (
        triton.count(ports, f"nv_inference_{name}", model="paraformer_model") for name in ("exec_count", "count")
    )

    async def ask() -> list[Any]:
        async with aio.InferenceServerClient(f"127.0.0.1:{ports.grpc}") as together:
            return await asyncio.gather(*(together.infer("paraformer", load.audio(one.samples())) for one in spoken))

    found = list(itertools.chain(*(asyncio.run(ask()) for _ in range(4))))
    assert [each.as_numpy("TRANSCRIPTS")[0, 0] for each in found] == 4 * expected
    more_runs, more_rows = runs_and_rows(ports, "paraformer_model")
    assert more_rows - rows == len(found) > more_runs - runs  # some were run as one


def test_lists_of_other_numbers_of_hotwords_at_once_get_their_own_answers(
    served: None,  # noqa: ARG001
    released: dict[str, Path],
    ports: server.Ports,
):
    """The graph is told how long a row's audio is, and not how many words: a list must not be padded with none."""
    graph_set, networks = triton.artifact(released["seaco_paraformer"])
    sizes = [{"batch": 1, "feats_length": 50, "num_hotwords": words} for words in (2, 5, 9, 20)]
    feeds = [graphs.example_feeds(graph_set.graphs["model"], each, seed=3) for each in sizes]

    async def ask() -> list[Any]:
        async with aio.InferenceServerClient(f"127.0.0.1:{ports.grpc}") as together:
            inputs = [load.tensors({name: a[:, None] if a.ndim == 1 else a for name, a in f.items()}) for f in feeds]
            return await asyncio.gather(*(together.infer("seaco_paraformer_model", one) for one in inputs))

    for answer, one in zip(asyncio.run(ask()), feeds, strict=True):
        assert np.allclose(answer.as_numpy("logits"), networks["model"](one)["logits"], atol=1e-4)


@PROTOCOLS
def test_a_stream_gives_what_streaming_here_gives(
    connect: Ask, released: dict[str, Path], spoken: list[Recording], protocol: str
):
    folder = released["paraformer_streaming"]
    push = models.STREAMED.load("paraformer_streaming").load_stream(folder, triton.artifact(folder))
    client = connect(protocol, "paraformer_streaming")
    for number, one in enumerate(spoken[:2], 1):
        audio = one.samples()
        cache: dict[str, Any] = {}
        pieces = [audio[start : start + PIECE] for start in range(0, len(audio), PIECE)]
        ours = [push(piece, cache, index == len(pieces) - 1) for index, piece in enumerate(pieces)]
        assert [text(answer) for answer in client.stream(audio, number)] == ours
        assert any(ours)


def test_interleaved_streams_do_not_mix(connect: Ask, tiny_corpus: Path):
    one = manifest.read(tiny_corpus, "evaluation")[0].samples()
    other, client = np.ascontiguousarray(one[8000:]), connect("grpc", "fsmn_vad_stream")

    def found(answers: Iterable[Answer]) -> list[Any]:
        return [answer["SEGMENTS"].tolist() for answer in answers]

    apart = found(client.stream(one, 11)), found(client.stream(other, 12))
    mixed = list(itertools.zip_longest(client.stream(one, 13), client.stream(other, 14)))
    assert tuple(found(answer for answer in answers if answer) for answers in zip(*mixed, strict=True)) == apart
    assert apart[0] != apart[1]


def test_states_of_a_graph_are_carried_from_chunk_to_chunk(connect: Ask, released: dict[str, Path]):
    graph_set, networks = triton.artifact(released["fsmn_vad"])
    graph = graph_set.graphs["model"]
    client = connect("grpc", "fsmn_vad_model")
    states: graphs.Feeds = {}
    for number in range(3):
        feeds = graphs.example_feeds(graph, {"feats_length": 20}, seed=number)
        ours = networks["model"](feeds | states)
        states = {name: ours[fed] for name, fed in graph.states.items()}
        found = client.ask(
            {"speech": feeds["speech"]}, sequence_id=21, sequence_start=number == 0, sequence_end=number == 2
        )
        assert np.allclose(found["logits"], ours["logits"], atol=1e-5)
    without = networks["model"](graphs.example_feeds(graph, {"feats_length": 20}, seed=2))
    assert not np.allclose(found["logits"], without["logits"], atol=1e-5)


@PROTOCOLS
def test_speech_is_detected_as_here(connect: Ask, released: dict[str, Path], tiny_corpus: Path, protocol: str):
    recordings = manifest.read(tiny_corpus, "evaluation")[:3]
    ours = fsmn_vad.score(released["fsmn_vad"], triton.artifact(released["fsmn_vad"]), "offline", recordings)
    client = connect(protocol, "fsmn_vad")
    found = [client.recognize(one.samples())["SEGMENTS"][0].tolist() for one in recordings]
    assert found == [outcome.segments for outcome in ours]
    assert any(found)


@PROTOCOLS
def test_text_is_punctuated_as_here(connect: Ask, released: dict[str, Path], protocol: str):
    words = "我们明天去公园你来吗"
    ours = models.PUNCTUATORS.load("ct_transformer").load_punctuator(
        released["ct_transformer"], triton.artifact(released["ct_transformer"])
    )(list(words))
    found = connect(protocol, "ct_transformer").ask({"TEXT": np.array([[words.encode()]], np.object_)})
    assert text(found, "PUNCTUATED") == ours.text
    assert ours.text != words


def test_emotions_are_scored_as_here(connect: Ask, released: dict[str, Path], spoken: list[Recording]):
    folder = released["emotion2vec"]
    ours = emotion2vec.load_classifier(folder, triton.artifact(folder))(spoken[0].samples())
    found = connect("grpc", "emotion2vec").recognize(spoken[0].samples())
    assert [label.decode() for label in found["LABELS"][0]] == list(emotion2vec.labels(folder))
    assert np.allclose(found["SCORES"][0], ours.scores, atol=1e-5)


def test_a_speaker_is_embedded_as_here(connect: Ask, released: dict[str, Path], spoken: list[Recording]):
    folder = released["campplus"]
    embed = models.EMBEDDERS.load("campplus").load_embedder(folder, triton.artifact(folder))
    found = [connect("grpc", "campplus").recognize(one.samples())["EMBEDDING"][0] for one in spoken[:2]]
    assert np.allclose(found, [embed(one.samples()).embedding for one in spoken[:2]], atol=1e-4)
    assert not np.allclose(found[0], found[1], atol=1e-2)


def test_hotwords_are_preferred_as_here(connect: Ask, released: dict[str, Path], spoken: list[Recording]):
    folder = released["seaco_paraformer"]
    recognize = seaco_paraformer.load_recognizer(folder, triton.artifact(folder))
    client, audio = connect("grpc", "seaco_paraformer"), spoken[0].samples()
    inputs = {"WAV": audio[None], "WAV_LENS": np.array([[len(audio)]], np.int32)}
    for words in ("", "医院 走高速"):
        more = {"HOTWORDS": np.array([[words.encode()]], np.object_)} if words else {}
        assert text(client.ask(inputs | more)) == recognize(audio, hotword=words).text


# What is wrong with a request


@pytest.mark.parametrize(
    ("model", "audio", "length", "words"),
    [
        pytest.param("paraformer", np.zeros(16_000), 16_001, "WAV_LENS: found 16001", id="a length over the audio's"),
        pytest.param("paraformer", np.zeros(80), 80, "found 80 samples", id="no window"),
        pytest.param("emotion2vec", np.zeros(80), 80, "found 80 samples", id="no frame"),
        pytest.param("fsmn_vad", np.full(16_000, np.nan), 16_000, "found NaN", id="not a number"),
    ],
)
def test_a_wrong_request_is_told_what_is_wrong(
    connect: Ask, ports: server.Ports, model: str, audio: np.ndarray, length: int, words: str
):
    before = triton.count(ports, "kiln_errors_total", model=model, kind="input")
    inputs = {"WAV": audio.astype(np.float32)[None], "WAV_LENS": np.array([[length]], np.int32)}
    with pytest.raises(InferenceServerException, match=words):
        connect("grpc", model).ask(inputs)
    assert triton.count(ports, "kiln_errors_total", model=model, kind="input") == before + 1


def test_a_text_that_is_not_utf_8_is_refused(connect: Ask):
    with pytest.raises(InferenceServerException, match="not UTF-8 at place 1"):
        connect("http", "ct_transformer").ask({"TEXT": np.array([[b"a\xff"]], np.object_)})


def test_a_piece_of_a_sequence_that_never_began_is_refused(connect: Ask):
    with pytest.raises(InferenceServerException, match=r"sequence"):
        connect("grpc", "fsmn_vad_stream").ask(
            {"WAV": np.zeros((1, 3200), np.float32), "WAV_LENS": np.array([[3200]], np.int32)}, sequence_id=99
        )


def test_an_abandoned_sequence_is_forgotten():
    now = itertools.count(0, IDLE_SECONDS / 2)
    sequences = Sequences[list[int]](list, clock=lambda: next(now))
    with sequences.state(1, starts=True, ends=False):
        pass
    for _ in range(2):
        with sequences.state(2, starts=True, ends=True):
            pass
    assert len(sequences) == 0


# The metrics


def test_metrics_count_what_was_served(connect: Ask, ports: server.Ports, spoken: list[Recording]):
    def read() -> dict[str, float]:
        labels = {"model": "paraformer", "version": "1", "target": "cpu_fp32"}
        names = (
            "requests_total",
            "audio_seconds_total",
            "results_total",
            "empty_results_total",
            "latency_seconds_count",
        )
        return {name: triton.count(ports, f"kiln_{name}", **labels) for name in (*names, "real_time_factor_count")}

    audio, before = spoken[0].samples(), read()
    client = connect("grpc", "paraformer")
    client.recognize(audio)
    silent = not text(client.recognize(np.zeros(16_000, np.float32)))
    moved = {name: value - before[name] for name, value in read().items()}
    assert moved.pop("audio_seconds_total") == pytest.approx(len(audio) / 16_000 + 1)
    assert moved.pop("empty_results_total") == silent
    assert set(moved.values()) == {2.0}


@pytest.mark.parametrize("silent", [True, False])
def test_a_stream_is_one_empty_result_only_if_nothing_was_said(
    connect: Ask, ports: server.Ports, spoken: list[Recording], *, silent: bool
):
    audio = np.zeros(PIECE, np.float32) if silent else spoken[0].samples()  # in more, the miniature hears a word
    names = ("kiln_results_total", "kiln_empty_results_total")
    before = [triton.count(ports, name, model="paraformer_streaming") for name in names]
    texts = [text(each) for each in connect("grpc", "paraformer_streaming").stream(audio, 31 + silent)]
    assert "" in texts
    assert (not any(texts)) == silent
    after = [triton.count(ports, name, model="paraformer_streaming") for name in names]
    assert after == [before[0] + 1, before[1] + silent]


def named_metrics() -> set[str]:
    rules = yaml.safe_load((ROOT / "serving" / "alerts.yaml").read_text())
    expressions = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    panels = json.loads((ROOT / "serving" / "dashboard.json").read_text())["panels"]
    expressions += [target["expr"] for panel in panels for target in panel["targets"]]
    return set(re.findall(r"\b(?:kiln|nv)_\w+", " ".join(expressions)))


def test_every_metric_of_the_dashboard_and_the_alerts_is_exported(connect: Ask, ports: server.Ports):
    connect("grpc", "paraformer").recognize(np.zeros(16_000, np.float32))
    exported = {key.partition("{")[0] for key in triton.samples(ports)}
    assert named_metrics() <= exported
    assert {name for name in exported if name.startswith("kiln_")} <= named_metrics() | {
        "kiln_latency_seconds_sum",
        "kiln_latency_seconds_count",
        "kiln_real_time_factor_sum",
        "kiln_real_time_factor_count",
    }


def test_load_prints_throughput_and_percentiles(connect: Ask, ports: server.Ports):  # noqa: ARG001
    latencies, seconds, audio = asyncio.run(load.drive(f"127.0.0.1:{ports.grpc}", "paraformer", 12, 3))
    assert len(latencies) == 12
    assert 24 <= audio <= 120
    line = load.describe(latencies, seconds, audio)
    assert re.search(r"12 requests in .* a second, .* p50 .* p95 .* p99 ", line)
