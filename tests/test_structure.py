"""One name everywhere: stage, file, block of dvc.yaml; and every path there is where layout says."""

from __future__ import annotations

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from stages.commands import side_by_side
from stages.core import layout, params
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
    tables = {"models", "datasets", "variants", "targets", "gates", "builds"}
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
    assert outs("environment") == [layout.ENVIRONMENT, layout.PARAMS_JSON]
    assert outs("fetch", "m") == [layout.checkpoint("m")]
    assert outs("corpus", "d") == [layout.corpus("d")]
    assert outs("reference", "m") == [layout.reference("m")]
    assert outs("prune", "m") == [layout.checkpoint("m", "pruned")]
    assert outs("export", "k", **graph) == [layout.graphs("m", "dense", "export")]
    assert outs("simplify", "k", **graph) == [layout.graphs("m", "dense", "simplify")]
    assert outs("optimize", "k", **graph) == [layout.graphs("m", "dense", "optimize")]
    assert outs("quantize", "k", **graph, recipe="int8") == [layout.graphs("m", "dense", "int8")]
    assert outs("engine", "k", **graph, target="trt") == [layout.graphs("m", "dense", "trt")]
    measurements = layout.measurements("t", "m")
    assert outs("evaluate", "k", model="m", target="t") == [measurements / "accuracy.json"]
    assert outs("benchmark", "k", model="m", target="t") == [measurements / "latency.json"]
    speech = layout.measurements("t", "speech") / "pipeline.json"
    assert outs("pipeline", "k", pipeline="speech", target="t") == [speech]
    assert set(outs("report", "t")) == {layout.report("t") / f for f in ("index.html", "report.md", "metrics.json")}
    assert layout.SUMMARY in outs("summary")
    assert outs("gate") == [layout.GATE]
    assert outs("package") == [layout.RELEASE]


def test_side_by_side_names_stages_of_dvc_yaml_once_and_leaves_out_what_needs_the_machine():
    waves = side_by_side.waves(params.load(ROOT / "params.yaml"))
    named = [stage for wave in waves for group in wave for stage in group]
    assert len(named) == len(set(named))
    places, blocks = zip(*(stage.partition("@")[0].split(":") for stage in named), strict=True)
    for place, block in set(zip(places, blocks, strict=True)):
        assert block in YAML(typ="safe").load(ROOT / place)["stages"]
    late = {"environment", "benchmark", "report", "summary", "gate", "package"}
    assert set(blocks) == set(DVC) - late


@pytest.mark.parametrize("table", ["variants", "builds"])
def test_a_table_s_keys_are_made_of_its_fields(table: str):
    for name, line in PARAMS[table].items():
        assert name == "-".join([line["model"], line.get("variant") or line["target"]])
