"""What runs follows from one entry a model, and DVC tracks of params.yaml just what each stage reads."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from stages.core import params, plan
from tests import workspace
from tests.workspace import ROOT

TEXT = (ROOT / "params.yaml").read_text()
OTHER = """  other:
    family: paraformer
    dataset: spoken_commands
    license: Apache-2.0
    sources: [{kind: folder, path: zoo/paraformer}]
    targets: [cpu_int8]
"""


def add_other(text: str = OTHER) -> str:
    return TEXT.replace("models:\n", f"models:\n{text}", 1)


def derived(text: str) -> plan.Plan:
    return plan.derive(params.parse(text, "params.yaml"))


def test_a_model_is_one_entry_and_one_more_target_a_name_in_its_list():
    before, one, two = derived(TEXT), derived(add_other()), derived(add_other(OTHER.replace("8]", "8, cpu_pruned]")))
    assert set(one.builds) - set(before.builds) == {"other-cpu_int8"}
    assert one.builds["other-cpu_int8"].artifact == "other/dense/int8"
    assert set(two.builds) - set(one.builds) == {"other-cpu_pruned"}
    assert set(two.variants) - set(one.variants) == {"other-pruned"}
    assert "other" in two.prune
    assert "other" not in one.prune


def test_a_stage_depends_on_a_model_s_own_settings_where_it_has_some():
    own = "    prune: {variations: 1}\n    tuned: {dense: {int8: {kind: float16}}}\n"
    text = add_other(OTHER.replace("8]\n", f"8, cpu_pruned_int8]\n{own}"))
    tables, p = derived(text), params.parse(text, "params.yaml")
    assert tables.prune["other"].settings_from == "models.other.prune"
    assert tables.prune["paraformer_streaming"].settings_from == "prune.paraformer_streaming"
    assert tables.quantize["other-dense-int8"].recipe_from == "models.other.tuned.dense.int8"
    assert tables.quantize["other-pruned-int8"].recipe_from == "quantize.recipes.int8"
    assert p.prune_settings("other") == p.prune["paraformer"].model_copy(update={"variations": 1})


def test_the_file_is_written_only_where_it_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    p = params.parse(TEXT, "params.yaml")
    assert plan.write(p)
    assert not plan.write(p)
    assert YAML(typ="safe").load(plan.PLAN)["plan"]["builds"]["fsmn_vad-cpu_int8"]["artifact"] == "fsmn_vad/dense/int8"


# What DVC says before anything is built, of a copy of the repository


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return workspace.repository(tmp_path_factory.mktemp("clone"))


def tracked(place: Path) -> dict[str, set[str]]:
    """The keys of params.yaml that DVC tracks for each stage, by the stage's name."""
    from dvc.dependency import ParamsDependency
    from dvc.repo import Repo

    with Repo(str(place)) as repo:
        stages: Any = repo.index.stages
        return {
            stage.name: {key for dep in stage.deps if isinstance(dep, ParamsDependency) for key in dep.params}
            for stage in stages
        }


def test_each_stage_tracks_what_it_reads_and_every_key_is_there(repository: Path):
    found, raw = tracked(repository), YAML(typ="safe").load(TEXT)
    raw["plan"] = YAML(typ="safe").load(ROOT / "plan.yaml")["plan"]
    assert found["fetch@paraformer"] == {"models.paraformer.family", "models.paraformer.sources"}
    assert found["prune@paraformer"] == {
        "models.paraformer.family",
        "models.paraformer.prune",
        "prune.paraformer",
    }
    assert found["prune@seaco_paraformer"] == {"models.seaco_paraformer.family", "prune.seaco_paraformer"}
    assert found["quantize@paraformer-dense-int8"] == {"models.paraformer.family", "quantize.recipes.int8"}
    for key in set().union(*found.values()):
        value = raw
        for step in key.split("."):
            value = value[step]


def test_another_target_of_a_model_touches_only_its_own_stages(repository: Path):
    before = tracked(repository)
    text = TEXT.replace("trt_rtx_fp16, trt_fp16, ", "trt_rtx_fp16, ", 1)
    assert text != TEXT
    (repository / "params.yaml").write_text(text)
    (repository / "plan.yaml").write_text(plan._text(derived(text)))
    try:
        after = tracked(repository)
    finally:
        for name in ("params.yaml", "plan.yaml"):
            shutil.copy(ROOT / name, repository)
    gone = {f"{stage}@fsmn_vad-trt_fp16" for stage in ("engine", "evaluate", "benchmark")}
    assert set(before) - set(after) == gone | {"report@trt_fp16"}  # which no other model has
    assert not set(after) - set(before)
