"""Searches measure on the tuning split, go on where they stopped, and change params.yaml only for the better."""

from __future__ import annotations

import json
import re
import shutil
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages import optimize, report
from stages.__main__ import main
from stages.commands import recipe_space, sensitivity, trials, tune
from stages.core import graphs, layout, params
from stages.core.errors import UserError
from stages.core.graphs import Graph, GraphSet
from stages.core.params.recipes import DynamicRecipe
from tests.rewrites import graphs as small
from tests.workspace import ROOT

BUILD = ("fsmn_vad", "cpu_int8")
NAME = "-".join(BUILD)


@pytest.fixture(scope="module")
def built(
    tiny_checkpoint: Path, tiny_corpus: Path, tiny_export: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """What `make repro` leaves of a tiny detector, up to its optimized graphs; every limit of its gate at 1."""
    root = tmp_path_factory.mktemp("built")
    dense = root / "artifacts" / "fsmn_vad" / "dense"
    shutil.copytree(tiny_checkpoint, dense / "checkpoint")
    corpus = Path(shutil.copytree(tiny_corpus, root / "artifacts" / "corpus" / "vad_mixtures"))
    lines = (corpus / "tuning.jsonl").read_text().splitlines(keepends=True)
    (corpus / "tuning.jsonl").write_text("".join(lines[:2]))
    for name in ("export", "simplify", "optimize"):
        shutil.copytree(tiny_export, dense / name)
    one = graphs.read(tiny_export).graphs["model"]
    optimize.optimize(tiny_export / one.file, one, dense / "optimize" / one.file, 2e-4)
    text = re.sub(r"    tuned:\n(      .*\n)+", "", (ROOT / "params.yaml").read_text())  # of the real detector's nodes
    (root / "params.yaml").write_text(re.sub(r"(_agreement|_f1|_100ms): 0\.\d+", r"\1: 1", text))
    return root


@pytest.fixture(autouse=True)
def workspace(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "artifacts").symlink_to(built / "artifacts")
    shutil.copy(built / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    for seconds in ("SECONDS", "FINAL_SECONDS"):
        monkeypatch.setattr(tune, seconds, 0.01)


def int8() -> DynamicRecipe:
    recipe = params.load().quantize.recipes["int8"]
    assert isinstance(recipe, DynamicRecipe)
    return recipe


def found() -> dict[str, Any]:
    return json.loads(layout.search(NAME).read_text())


def test_sensitivity_measures_every_layer_alone_and_goes_on_where_it_stopped(monkeypatch, capsys):
    measured: list[Any] = []
    real = sensitivity._measure_alone

    def counted(bench, others):
        measured.append(others)
        return real(bench, others)

    def interrupted(bench, others):
        if len(measured) == 3:
            raise KeyboardInterrupt
        return counted(bench, others)

    monkeypatch.setattr(sensitivity, "_measure_alone", interrupted)
    with pytest.raises(KeyboardInterrupt):
        main(["sensitivity", *BUILD])
    assert len(found()["sensitivity"]["units"]) == 3
    monkeypatch.setattr(sensitivity, "_measure_alone", counted)
    main(["sensitivity", *BUILD])
    units = found()["sensitivity"]["units"]
    layers = trials.layers(layout.graphs("fsmn_vad", "dense", "optimize"), int8())
    assert set(layers) <= set(units)
    assert len(measured) == len(units)
    assert all(unit["error"] > 0 for unit in units.values())
    said = capsys.readouterr().out
    assert all(name in said for name in ("output error", "searches/fsmn_vad-cpu_int8.json"))


def test_what_was_measured_of_other_graphs_does_not_hold(monkeypatch):
    made_up = {"value": 1.0, "loss": 0.0, "ci": [0.0, 0.0], "error": 1e-3}
    monkeypatch.setattr(sensitivity, "_measure_alone", lambda *_: made_up)
    main(["sensitivity", *BUILD])
    known = found()
    known["sensitivity"]["about"]["graphs"]["optimize"] = {"model.onnx": "0" * 64}
    known["sensitivity"]["units"] = {"gone": {}}
    layout.search(NAME).write_text(json.dumps(known))
    main(["sensitivity", *BUILD])
    assert "gone" not in found()["sensitivity"]["units"]


def test_tune_starts_from_funasr_s_recipe_and_writes_a_winner_as_one_line_s_difference(capsys):
    before = Path("params.yaml").read_text()
    main(["tune", *BUILD, "--trials", "2", "--smallest"])
    tried = found()["tune"]["trials"]
    assert len(tried) == 2
    assert tried[0]["graph"] == "simplify"
    assert tried[0]["recipe"] == {
        "kind": "dynamic",
        "weight_type": "QUInt8",
        "per_channel": True,
        "reduce_range": False,
    } | {"op_types": ["MatMul", "Gemm"], "embedding_rows": 4096}
    passed = [t for t in tried if t["passed"]]
    best, present = found()["tune"]["best"], found()["tune"]["present"]
    assert best["bytes"] == min(t["bytes"] for t in passed)
    after, said = Path("params.yaml").read_text(), capsys.readouterr().out
    if best["bytes"] < present["bytes"]:
        tuned = params.load().models["fsmn_vad"].tuned["dense"]["int8"]
        assert tuned.model_dump(exclude_defaults=True, exclude={"graph"}) == best["recipe"]
        assert tuned.graph == best["graph"]
        assert before.count("#") <= after.count("#")
        assert "+    tuned: " in said
    else:
        assert after == before


def test_a_gate_that_nothing_passes_ends_in_one_message_and_changes_nothing(monkeypatch):
    monkeypatch.setattr(recipe_space, "order_layers", lambda _: dict.fromkeys(("simplify", "optimize"), ["layer"] * 8))
    text = Path("params.yaml").read_text().replace("offline_frame_agreement: 1 ", "offline_posterior_max_drift: 1e-9 ")
    Path("params.yaml").write_text(text)
    with pytest.raises(UserError, match=r"none of \d recipes passed the gate on the tuning split; the nearest"):
        main(["tune", *BUILD, "--trials", "1"])
    assert Path("params.yaml").read_text() == text


def test_a_recipe_whose_outputs_are_nan_does_not_pass(monkeypatch):
    monkeypatch.setattr(trials, "evaluate", lambda *_: {"not_finite": 3, "metrics": {}})
    with pytest.raises(UserError, match=r"none of 1 recipes .*: NaN or infinite numbers in 3 recordings"):
        main(["tune", *BUILD, "--trials", "1"])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        pytest.param(("fsmn_vad", "cpu_int9"), "has no build 'fsmn_vad-cpu_int9'; did you mean", id="unknown"),
        pytest.param(("fsmn_vad", "cpu_fp32"), "found export on onnxruntime, wanted INT8", id="not-int8"),
        pytest.param(("fsmn_vad", "trt_fp16"), "found fp16 on tensorrt, wanted INT8", id="not-onnxruntime"),
        pytest.param(("paraformer", "cpu_int8"), "paraformer/dense/optimize is not there", id="not-built"),
    ],
)
def test_what_cannot_be_searched_is_named(build, message):
    with pytest.raises(UserError, match=message):
        main(["sensitivity", *build])


def test_the_front_is_what_none_beats_in_both():
    points = [(2.0, 0.3), (3.0, 0.5), (2.5, 0.1), (1.0, 0.1), (1.5, 0.05)]
    front = report.pareto_front([{"speedup": speed, "loss": loss} for speed, loss in points])
    assert [(t["speedup"], t["loss"]) for t in front] == [(3.0, 0.5), (2.5, 0.1), (1.5, 0.05)]


def test_a_large_table_is_a_layer_of_its_own(tmp_path: Path):
    text = "g (int32[1,N] ids, float[50,8] table) => (float[1,N,8] y) { y = Gather(table, ids) }"
    model = small.model(text, table=np.ones((50, 8)))
    model.graph.initializers["table"].name = "embed.weight"
    next(iter(model.graph)).name = "lookup"
    graphs.save(model, tmp_path / "model.onnx")
    graph = Graph(file="model.onnx", inputs={}, outputs={}, states={}, axes={})
    graphs.write(tmp_path, GraphSet(graphs={"model": graph}, cases={}))
    recipe = int8()
    assert trials.layers(tmp_path, recipe) == {}
    assert trials.layers(tmp_path, recipe.model_copy(update={"embedding_rows": 50})) == {"embed": ["lookup"]}


def write_lstms(folder: Path, *names: str) -> None:
    """Write a set of graphs with an LSTM each, called by the names, and a node of the same name."""
    text = """g (float[T,1,4] x, float[1,32,4] w, float[1,32,8] r) => (float[T,1,1,8] y) {
      y = LSTM<hidden_size = 8>(x, w, r)
    }"""
    for name in names:
        model = small.model(text, w=np.ones((1, 32, 4)), r=np.ones((1, 32, 8)))
        model.graph.initializers["w"].name = f"{name}.weight"
        next(iter(model.graph)).name = "recurrence"
        graphs.save(model, folder / f"{name}.onnx")
    described = {name: Graph(file=f"{name}.onnx", inputs={}, outputs={}, states={}, axes={}) for name in names}
    graphs.write(folder, GraphSet(graphs=described, cases={}))


@pytest.mark.parametrize("names", [pytest.param(("times",), id="one"), pytest.param(("times", "hotwords"), id="two")])
def test_an_lstm_is_a_layer_together_with_another_of_its_name(tmp_path: Path, names: tuple[str, ...]):
    write_lstms(tmp_path, *names)
    assert trials.layers(tmp_path, int8()) == {", ".join(names): ["recurrence"]}


def test_tune_quantizes_an_lstm_where_onnx_runtime_s_own_operators_may_be():
    with trials.open_bench(*BUILD) as bench:
        for graph, kind in product(("simplify", "optimize"), ("dynamic", "static")):
            choice = recipe_space.FUNASR | {"graph": graph, "kind": kind, "calibration": "minmax"}
            recipe = recipe_space.build_recipe(bench, choice, {graph: []})
            assert ("LSTM" in recipe.op_types) == ((graph, kind) == ("optimize", "dynamic"))


@pytest.mark.parametrize(
    ("flag", "value"),
    [("--minutes", "-1"), ("--minutes", "nan"), ("--minutes", "inf"), ("--trials", "0"), ("--trials", "-5")],
)
def test_a_search_without_end_or_time_is_refused(flag: str, value: str):
    with pytest.raises(UserError, match=rf"tune: {flag}: found .*, wanted a number over 0"):
        main(["tune", *BUILD, flag, value])
