"""The weights of a large model are on disk once, and every stage finds them.

Large is what is over a limit; the limit is lowered here, so that a tiny model goes that way.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from stages import benchmark, engine, evaluate, export, optimize, quantize, reference, simplify
from stages.core import graphs, layout, params, plan
from stages.core.errors import UserError
from stages.core.files import read_json, sha256, write_json
from stages.release import contents
from stages.reporting import results
from stages.runtimes import onnxruntime, tensorrt
from tests.rewrites.graphs import numbers
from tests.workspace import ROOT

MODEL = "fsmn_vad"
DATA = "model.onnx.data"
SHARING = ("simplify", "optimize")


@pytest.fixture(scope="module")
def workspace(tiny_checkpoint: Path, tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository's params.yaml, and what its stages made of the tiny FSMN-VAD as of a large model."""
    root = tmp_path_factory.mktemp("large")
    shutil.copy(ROOT / "params.yaml", root)
    shutil.copytree(tiny_checkpoint, root / layout.checkpoint(MODEL))
    shutil.copytree(tiny_corpus, root / layout.corpus("vad_mixtures"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("PYTHONPATH", str(ROOT))  # of the processes that stages start
        patch.setattr(graphs, "EXTERNAL_BYTES", 50_000)  # more than the rewrites change of this family
        patch.setattr(graphs, "LARGE_TENSOR", 1000)
        patch.setattr(simplify, "_nodes", _never_the_same)  # the exporter left nothing to simplify
        for stage in (export, simplify, optimize):
            stage.main([f"{MODEL}-dense"])
        for recipe in ("int8", "fp16"):
            quantize.main([f"{MODEL}-dense-{recipe}"])
        reference.main([MODEL])
    return root


def _never_the_same(place: Path) -> list[object]:
    return [place]


@pytest.fixture
def here(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same as the working folder; returns that of the model's graphs."""
    monkeypatch.chdir(workspace)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return layout.graphs(MODEL, "dense", "export").parent


def outputs(folder: Path) -> dict[str, np.ndarray]:
    graph_set = graphs.read(folder)
    feeds = graphs.example_feeds(graph_set.graphs["model"], {"feats_length": 50}, seed=0)
    return onnxruntime.load(folder, graph_set)["model"](feeds)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_weights_are_written_once(here: Path):
    assert DATA in names(here / "export")
    weights = (here / "export" / DATA).stat().st_size
    for name in SHARING:
        assert names(here / name) == {"model.onnx", graphs.FILE, f"{name}.json"}
        assert (here / name / "model.onnx").stat().st_size < weights
        assert graphs.size(here / name) > weights  # what it takes to run it


@pytest.mark.parametrize("name", SHARING)
def test_a_graph_without_its_weights_says_what_the_export_says(here: Path, name: str):
    found, wanted = outputs(here / name), outputs(here / "export")
    assert np.abs(found["logits"] - wanted["logits"]).max() < 1e-5


@pytest.mark.parametrize("recipe", ["int8", "fp16"])
def test_a_quantized_graph_has_weights_of_its_own(here: Path, recipe: str):
    shutil.copytree(here / recipe, Path("alone") / recipe)
    assert graphs.files(here / recipe).keys() == {"model.onnx"} | ({DATA} if recipe == "int8" else set())
    found, wanted = outputs(Path("alone") / recipe), outputs(here / "export")
    assert 0 < np.abs(found["logits"] - wanted["logits"]).max() < 0.1


def test_other_weights_are_another_artifact(here: Path, tmp_path: Path):
    shutil.copytree(here, tmp_path / "dense")
    before = results.artifact(tmp_path / "dense" / "optimize")
    with (tmp_path / "dense" / "export" / DATA).open("r+b") as f:
        f.write(b"\1\2\3\4")
    after = results.artifact(tmp_path / "dense" / "optimize")
    assert before["files"]["model.onnx"] == after["files"]["model.onnx"]
    assert before["sha256"] != after["sha256"]
    assert before["bytes"] == after["bytes"] == graphs.size(tmp_path / "dense" / "optimize")


@pytest.mark.usefixtures("here")
def test_accuracy_and_latency_are_measured_of_all_of_it(monkeypatch: pytest.MonkeyPatch):
    p = params.load()
    quick = p.model_copy(update={"benchmark": p.benchmark.model_copy(update={"seconds": 0.01, "extra_blocks": 0})})
    monkeypatch.setattr(params, "load", lambda: quick)
    for stage in (evaluate, benchmark):
        stage.main([f"{MODEL}-cpu_fp32_opt"])
    folder = layout.measurements("cpu_fp32_opt", MODEL)
    assert read_json(folder / "accuracy.json")["metrics"]["offline_frame_agreement"]["value"] == 1
    latency = read_json(folder / "latency.json")
    assert latency["files"].keys() == {"model.onnx", DATA}
    assert latency["bytes"]["value"] == pytest.approx(latency["bytes"]["baseline"], rel=0.3)
    assert latency["peak_memory_mib"]["value"] > 0


def test_a_release_needs_nothing_beside_it(here: Path, tmp_path: Path):
    artifact = here / "optimize"
    files = results.artifact(artifact)["files"]
    contents.fill(artifact, layout.checkpoint(MODEL), files, tmp_path, integer=False)
    assert {"model.onnx", DATA} <= names(tmp_path)
    onnx.checker.check_model(tmp_path / "model.onnx", full_check=True)
    found, wanted = outputs(tmp_path), outputs(here / "export")
    assert np.abs(found["logits"] - wanted["logits"]).max() < 1e-5


def test_an_engine_is_built_of_the_whole_graph(here: Path, monkeypatch: pytest.MonkeyPatch):
    p = params.load()
    tables = plan.derive(p)
    line = tables.engine[f"{MODEL}-trt_rtx_fp16"].model_copy(update={"graph": "simplify"})
    monkeypatch.setattr(plan, "derive", lambda _: tables.model_copy(update={"engine": {"build": line}}))
    monkeypatch.setattr(tensorrt, "why_not_built", lambda _: None)
    given = []

    def build(_graph: object, place: Path, *_: object) -> dict[str, object]:
        onnx.checker.check_model(place)
        given.append(sha256(place.with_name(DATA)))
        return {}

    monkeypatch.setattr(engine, "build", build)
    engine.main(["build"])
    assert given == [sha256(here / "export" / DATA)]
    assert names(here / "trt_rtx_fp16") == {graphs.FILE, "engine.json"}
    assert graphs.files(here / "trt_rtx_fp16") == {}


def test_a_graph_whose_weights_most_changed_has_a_file_of_its_own(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(graphs, "EXTERNAL_BYTES", 1000)
    monkeypatch.setattr(graphs, "LARGE_TENSOR", 1000)
    model, place = graphs.load(here / "optimize" / "model.onnx"), tmp_path / "own" / "model.onnx"
    for value in model.graph.initializers.values():
        value.const_value = ir.tensor(numbers(value).copy())
    place.parent.mkdir()
    graphs.save(model, place, here / "export")
    graphs.write(place.parent, graphs.read(here / "optimize"), here / "export")
    assert names(place.parent) == {"model.onnx", DATA, graphs.FILE}
    assert outputs(place.parent)


def test_a_small_graph_is_one_file_and_its_record_says_nothing_of_weights(tiny_export: Path, tmp_path: Path):
    place = tmp_path / "simplify" / "model.onnx"
    place.parent.mkdir()
    graphs.save(graphs.load(tiny_export / "model.onnx"), place, tiny_export)
    graphs.write(place.parent, graphs.read(tiny_export), tiny_export)
    assert place.read_bytes() == (tiny_export / "model.onnx").read_bytes()
    assert (place.parent / graphs.FILE).read_bytes() == (tiny_export / graphs.FILE).read_bytes()
    assert "weights" not in read_json(place.parent / graphs.FILE)["graphs"]["model"]


def test_a_graph_set_that_names_a_folder_is_read_back(tiny_export: Path, tmp_path: Path):
    known = read_json(tiny_export / graphs.FILE)
    known["graphs"]["model"]["weights"] = "export"
    write_json(tmp_path / graphs.FILE, known)
    assert graphs.read(tmp_path).graphs["model"].weights == "export"
    assert graphs.weights_folder(tmp_path / "model.onnx") == tmp_path.parent / "export"


@pytest.mark.parametrize("read", [graphs.load, graphs.load_proto])
@pytest.mark.parametrize("data", [b"no graph at all", b"\x08\x0a\x3a\xff\xff", None])
def test_a_file_that_is_no_graph_is_one_line(tmp_path: Path, read, data: bytes | None):
    place = tmp_path / "model.onnx"
    if data is not None:
        place.write_bytes(data)
    with pytest.raises(UserError, match=r"^[^\n]*model\.onnx cannot be read as ONNX: [^\n]*$"):
        read(place)
