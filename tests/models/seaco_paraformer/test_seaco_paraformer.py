"""Hotwords change what is heard, in torch, in every graph on the way to INT8, and in FunASR's own runtime alike."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from stages import optimize, simplify
from stages.core import graphs, params
from stages.core.parity import LoadedArtifact, largest_differences
from stages.corpora import hotword_commands, manifest
from stages.corpora.manifest import Recording
from stages.export import export_variant
from stages.models import paraformer, seaco_paraformer
from stages.models.accuracy import LISTED
from stages.models.shared import asr
from stages.models.shared.checkpoint import torch_artifact
from stages.quantization import calibration
from stages.quantize import check_effect, quantize
from stages.runtimes import onnxruntime
from tests.workspace import ROOT

CHECKPOINT = ROOT / "zoo" / "seaco_paraformer"
PARAMS = params.load(ROOT / "params.yaml")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    hotword_commands.make(3, {"calibration": 4, "tuning": 32}, folder)
    return folder


@pytest.fixture(scope="module")
def recordings(corpus: Path) -> list[Recording]:
    return manifest.read(corpus, "tuning")  # without noise, which FunASR's runtime asserts on


@pytest.fixture(scope="module")
def built(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniature's graphs by every stage: export, simplify, optimize and INT8."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("built")
    for name in ("export", "simplify", "optimize", "int8"):
        (root / name).mkdir()
    export_variant(seaco_paraformer, CHECKPOINT, root / "export", opset=18, tolerance=PARAMS.parity.tolerance)
    graph_set = graphs.read(root / "export")
    record = {}
    for name, graph in graph_set.graphs.items():
        simplify.simplify(
            root / "export" / graph.file,
            graph,
            root / "simplify" / graph.file,
            PARAMS.simplify,
            PARAMS.parity.tolerance,
        )
        record[name] = optimize.optimize(
            root / "simplify" / graph.file, graph, root / "optimize" / graph.file, PARAMS.parity.tolerance
        )
    (root / "optimize.json").write_text(json.dumps(record))
    for name in ("simplify", "optimize", "int8"):
        graphs.write(root / name, graph_set)
    given = manifest.read(corpus, "calibration")
    feeds = calibration.record_feeds(seaco_paraformer, CHECKPOINT, root / "optimize", given, 32)
    recipe = PARAMS.quantize.recipes["int8"]
    records = {
        name: quantize(root / "optimize" / graph.file, root / "int8" / graph.file, recipe, feeds[name])
        for name, graph in graph_set.graphs.items()
    }
    check_effect(root / "optimize", records)
    return root


def artifact(folder: Path) -> LoadedArtifact:
    graph_set = graphs.read(folder)
    return graph_set, onnxruntime.load(folder, graph_set)


@pytest.mark.parametrize("mode", LISTED)
def test_a_score_is_what_funasr_s_own_network_says_with_the_same_list(
    built: Path, recordings: list[Recording], mode: str
):
    recordings = recordings[:12]
    model, config = seaco_paraformer.load(CHECKPOINT), seaco_paraformer.read_config(CHECKPOINT)
    tools = {
        "tokenizer": asr.load_tokenizer(CHECKPOINT, config),
        "frontend": paraformer.network.load_frontend(CHECKPOINT, config),
    }
    texts = [
        paraformer.scoring.recognize(model, r.samples(), hotword=" ".join(r.hotwords[: LISTED[mode]]), **tools)
        for r in recordings
    ]
    for ours in (artifact(built / "export"), torch_artifact(seaco_paraformer, seaco_paraformer.load(CHECKPOINT))):
        outcomes = seaco_paraformer.score(CHECKPOINT, ours, mode, recordings)
        assert [outcome.text for outcome in outcomes] == texts


def test_every_rewrite_that_applies_is_kept_in_both_graphs(built: Path):
    record = json.loads((built / "optimize.json").read_text())
    applied = {name for name, found in record["model"].items() if found["count"]}
    assert {"sanm_memory", "attention"} <= applied
    assert {graph.file for graph in graphs.read(built / "optimize").graphs.values()} == {"model.onnx", "model_eb.onnx"}
    for rewrites in record.values():
        assert not [r["left_out"] for r in rewrites.values() if r["count"] and r["left_out"]]
    for graph in graphs.read(built / "export").graphs.values():
        pair = [onnxruntime.network(built / name / graph.file, graph) for name in ("export", "optimize")]
        assert max(largest_differences(graph, *pair).values()) < PARAMS.parity.tolerance


@pytest.mark.parametrize("stage", ["export", "optimize", "int8"])
def test_hotwords_change_what_is_heard_as_they_do_in_fp32(built: Path, recordings: list[Recording], stage: str):
    recall = {}
    for mode in ("offline", "list1", "list50"):
        outcomes = seaco_paraformer.score(CHECKPOINT, artifact(built / stage), mode, recordings)
        counts = seaco_paraformer.measure(CHECKPOINT, recordings, outcomes, outcomes)
        recall[mode] = sum(of["hotword_recall"][0] for of in counts) / sum(of["hotword_recall"][1] for of in counts)
    assert recall["list1"] >= recall["offline"] + 0.15
    assert recall["list50"] >= recall["offline"] + 0.1


@pytest.mark.parametrize("count", [1, 50])  # the runtime knows no empty list
def test_funasr_s_runtime_hears_the_same_in_a_release(
    built: Path, recordings: list[Recording], count: int, tmp_path: Path
):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from funasr_onnx import SeacoParaformer
    folder = Path(shutil.copytree(CHECKPOINT, tmp_path / "release"))
    for graph in graphs.read(built / "optimize").graphs.values():
        shutil.copyfile(built / "optimize" / graph.file, folder / graph.file)
    runtime = SeacoParaformer(str(folder), intra_op_num_threads=1)
    mode = next(mode for mode, listed in LISTED.items() if listed == count)
    outcomes = seaco_paraformer.score(CHECKPOINT, artifact(built / "optimize"), mode, recordings)
    for recording, outcome in list(zip(recordings, outcomes, strict=True))[:8]:
        hotwords = " ".join(recording.hotwords[:count])
        said, wanted = runtime(recording.samples(), hotwords)[0]["preds"], outcome.text.replace(" ", "")
        assert said.replace(" ", "") in {wanted, wanted[:-1]}  # it leaves out the last token


def test_hotwords_are_counted_whatever_was_listed():
    recording = Recording(id="a", text="给明华打电话。", hotwords=["明华", "鸣华", "客厅"], folder=Path())
    texts = {"给明华打电话": ((1, 1), (0, 1)), "给鸣华打电话": ((0, 1), (1, 1)), "客厅鸣华": ((0, 1), (2, 1))}
    for text, (recall, alarms) in texts.items():
        outcome = asr.Outcome([1, 2], text)
        (counts,) = seaco_paraformer.measure(CHECKPOINT, [recording], [outcome], [outcome])
        assert (counts["hotword_recall"], counts["hotword_false_alarms"]) == (recall, alarms)


def test_a_hotword_of_marks_alone_is_in_no_text():
    recording = Recording(id="a", text="给明华打电话。", hotwords=["明华", "。"], folder=Path())
    nothing = asr.Outcome([], "")
    (counts,) = seaco_paraformer.measure(CHECKPOINT, [recording], [nothing], [nothing])
    assert (counts["hotword_recall"], counts["hotword_false_alarms"]) == ((0, 1), (0, 1))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("打开客厅的灯。", ["客厅的"], id="characters"),
        pytest.param("call Jonathan now", ["jonathan"], id="the-longest-word"),
        pytest.param("好", ["好"], id="one-character"),
        pytest.param("", [], id="nothing-said"),
    ],
)
def test_a_recording_without_hotwords_lends_one_of_its_text(text: str, words: list[str]):
    recording = Recording(id="a", wav="a.wav", seconds=1, sha256="0" * 64, text=text, folder=Path())
    assert seaco_paraformer.metrics.hotwords(recording) == words


@pytest.mark.parametrize("word", ["http://127.0.0.1:9/words", "https", "no/such/hotwords.txt"])
def test_a_hotword_is_neither_a_file_nor_an_address(recordings: list[Recording], word: str):
    """FunASR would take it for one, and whoever sends hotwords to a server would have it read and ask."""
    ours = torch_artifact(seaco_paraformer, seaco_paraformer.load(CHECKPOINT))
    recognize = seaco_paraformer.load_recognizer(CHECKPOINT, ours)
    samples = recordings[0].samples()
    assert recognize(samples, hotword=word) == recognize(samples, hotword="unheard")


def test_more_words_than_the_graph_keeps_are_heard_as_fewer(recordings: list[Recording]):
    """Of 500 words FunASR listens for 50: those that the decoder attends to most."""
    ours = torch_artifact(seaco_paraformer, seaco_paraformer.load(CHECKPOINT))
    found = seaco_paraformer.score(CHECKPOINT, ours, "list500", recordings)
    assert np.mean([bool(outcome.text) for outcome in found]) == 1
