"""One name everywhere: stage, file, block of dvc.yaml; and every path there is where layout says."""

from __future__ import annotations

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from stages.commands import schedule
from stages.core import failures, layout, params, plan
from tests.workspace import ROOT

DVC = {
    name: block
    for place in (*(ROOT / "stages").rglob("dvc.yaml"), ROOT / "dvc.yaml")
    for name, block in YAML(typ="safe").load(place)["stages"].items()
}
PARAMS = YAML(typ="safe").load(ROOT / "params.yaml")
FILES = {path.stem for path in (ROOT / "stages").glob("[a-z]*.py")}


def test_every_stage_has_a_file_and_every_file_a_stage():
    assert set(DVC) == FILES


def test_every_section_is_a_stage_s_or_a_table():
    tables = {"models", "datasets", "pipelines", "targets", "gates", "baselines", "parity"}
    assert set(PARAMS) - tables <= FILES
    assert set(PARAMS) == set(params.Params.model_fields)


@pytest.mark.parametrize("name", sorted(DVC))
def test_a_stage_runs_its_file_and_depends_on_it(name: str):
    block = DVC[name].get("do", DVC[name])
    assert block["cmd"].split()[:3] == ["python", "-m", f"stages.{name}"]
    if name != "environment":
        assert f"stages/{name}.py" in block["deps"]


@pytest.mark.parametrize("name", sorted(DVC))
def test_code_that_a_stage_depends_on_exists(name: str):
    for dep in DVC[name].get("do", DVC[name]).get("deps", []):
        if dep.startswith("stages/"):
            assert (ROOT / dep).exists(), dep


def test_who_reads_graphs_depends_on_the_export_that_may_have_their_weights():
    readers = 0
    for block in DVC.values():
        deps = block.get("do", block).get("deps", [])
        for dep in deps:
            if dep.endswith(("/${item.artifact}", "/${item.graph}", "/simplify")):
                readers += 1
                assert {f"{dep}/../export", "artifacts/${item.model}/${item.variant}/export"} & set(deps), dep
    assert readers == 10


def outs(stage: str, key: str = "", **item: str) -> list[Path]:
    """The outs of one instance of a stage, with DVC's templates filled in."""
    block = DVC[stage].get("do", DVC[stage])
    names = {"key": key} | {f"item.{field}": value for field, value in item.items()}
    found = []
    for out in [*block.get("outs", []), *block.get("metrics", [])]:
        for name, value in names.items():
            out = out.replace(f"${{{name}}}", value)  # noqa: PLW2901  filled in step by step
        found.append(Path(out))
    return found


def test_outs_are_where_layout_puts_them():
    graph = {"model": "m", "variant": "dense"}
    assert outs("environment") == [layout.ENVIRONMENT]
    assert outs("fetch", "m") == [layout.checkpoint("m")]
    assert outs("corpus", "d") == [layout.corpus("d")]
    assert outs("reference", "m") == [layout.reference("m")]
    assert outs("prune", "m") == [layout.checkpoint("m", "pruned")]
    assert outs("export", "k", **graph) == [layout.graphs("m", "dense", "export")]
    assert outs("simplify", "k", **graph) == [layout.graphs("m", "dense", "simplify")]
    assert outs("optimize", "k", **graph) == [layout.graphs("m", "dense", "optimize")]
    assert outs("portable", "k", **graph) == [layout.graphs("m", "dense", "portable")]
    assert outs("quantize", "k", **graph, recipe="int8") == [layout.graphs("m", "dense", "int8")]
    assert outs("engine", "k", **graph, target="trt") == [layout.graphs("m", "dense", "trt")]
    assert outs("trace", "k", **graph, target="ts") == [layout.graphs("m", "dense", "ts")]
    measurements = layout.measurements("t", "m")
    assert outs("evaluate", "k", model="m", target="t") == [measurements / "accuracy.json"]
    assert outs("benchmark", "k", model="m", target="t") == [measurements / "latency.json"]
    speech = layout.measurements("t", "speech") / "pipeline.json"
    assert outs("pipeline", "k", pipeline="speech", target="t") == [speech]
    assert set(outs("report", "t")) == {layout.report("t") / f for f in ("index.html", "report.md", "metrics.json")}
    assert layout.SUMMARY in outs("summary")
    assert outs("gate") == [layout.GATE]
    assert outs("package") == [layout.RELEASE]


@pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")  # of DVC's own tries
def test_the_schedule_names_every_stage_once_each_part_after_what_it_needs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    parts = schedule.parts(failures.index_graph())
    named = [stage for part in parts for stage in part.stages]
    assert len(named) == len(set(named))
    late = {"environment", "report", "summary", "gate", "package", "trace"}  # which no default target has
    assert {stage.partition("@")[0].rpartition(":")[2] for stage in named} == set(DVC) - late
    keys = set(PARAMS["models"])
    models = [part for part in parts if part.kind == "model"]
    assert {part.name for part in models} == keys
    for part in models:
        others = keys - {part.name}
        assert not [s for s in part.stages if s.rpartition("@")[2].partition("-")[0] in others]
        assert part.stages.index(f"stages/dag/checkpoints/dvc.yaml:fetch@{part.name}") < len(part.stages) - 1
    built: set[str] = set()
    for part in parts:
        assert part.needs <= built
        built |= set(part.stages)


def test_the_committed_plan_is_what_params_ask_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    plan.check(params.load())
