"""The loop that has parts built, with an executor that only notes what it is asked for."""

from __future__ import annotations

import subprocess
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from stages.commands import schedule
from stages.commands.schedule import Kind, Part
from stages.core import failures, params, plan
from tests import workspace

pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")  # of DVC's own tries


class Noting:
    """Builds up to two parts at a time, all stages but those that fail."""

    def __init__(self, *failing: str) -> None:
        self.failing, self.most = failing, 0
        self.running: list[Part] = []
        self.order: list[str] = []

    def has_room(self, _part: Part) -> bool:
        return len(self.running) < 2

    def start(self, part: Part) -> None:
        self.order.append(part.name)
        self.running.append(part)
        self.most = max(self.most, len(self.running))

    def wait(self) -> Iterator[tuple[Part, Collection[str]]]:
        part = self.running.pop(0)
        yield part, [stage for stage in part.stages if stage not in self.failing]


def part(name: str, *needs: str, kind: Kind = "model") -> Part:
    return Part(name, kind, (f"{name}1", f"{name}2"), frozenset(needs))


def test_a_part_begins_once_all_that_it_needs_is_built_and_as_many_as_there_is_room_for():
    parts = [part("pipeline", "a2", "b2"), part("b", "data1"), part("a", "data2"), part("data"), part("c")]
    executor = Noting()
    assert schedule.run(parts, executor) == []
    assert sorted(executor.order[:2]) == ["c", "data"]
    assert executor.order[-1] == "pipeline"
    assert executor.most == 2


def test_what_needs_a_stage_that_failed_is_kept_back_and_nothing_else():
    parts = [part("a"), part("needs_a1", "a1"), part("needs_a2", "a2"), part("needs_that", "needs_a22"), part("b")]
    executor = Noting("a2")
    assert [one.name for one in schedule.run(parts, executor)] == ["needs_a2", "needs_that"]
    assert set(executor.order) == {"a", "b", "needs_a1"}


def test_a_need_that_no_part_builds_is_there_already():
    assert schedule.run([part("a", "built before")], Noting()) == []


def test_many_parts_of_a_kind_become_as_many_tasks_as_are_worth_their_start():
    parts = [part(f"m{number}", "data1", kind="model") for number in range(10)] + [part("data", kind="shared")]
    made = schedule.gather(parts, 3)
    assert [len(one.stages) for one in made] == [8, 6, 6, 2]
    assert made[0].name == "m0 and 3 more"
    assert {stage for one in made for stage in one.stages} == {stage for one in parts for stage in one.stages}
    assert schedule.gather(parts, 10) == parts


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what DVC reads of this tree, with one model that a CUDA device runs too."""
    place = workspace.repository(tmp_path)
    monkeypatch.chdir(place)
    settings = YAML(typ="safe").load(place / "params.yaml")
    model = settings["models"]["paraformer"] | {"targets": ["cpu_int8", "cuda_fp16"]}
    settings |= {"models": {"a": model, "b": model}, "pipelines": {}}
    settings["datasets"] = {name: settings["datasets"][name] for name in [model["dataset"]]}
    YAML().dump(settings, place / "params.yaml")
    plan.write(params.load())
    subprocess.run(["git", "init", "--quiet"], check=True)
    return place


@pytest.mark.usefixtures("repository")
def test_what_runs_on_a_gpu_and_what_needs_that_is_a_part_of_its_own():
    graph, p = failures.index_graph(), params.load()
    parts = schedule.parts(graph)
    assert [one.name for one in parts] == ["corpus@spoken_commands", "a", "b", "timing of a", "timing of b"]
    apart = list(schedule.with_gpu_apart(parts, graph, p))
    on_gpu = {one.name: {stage.rpartition(":")[2] for stage in one.stages} for one in apart if one.on_gpu}
    assert on_gpu == {
        "a on a GPU": {"evaluate@a-cuda_fp16"},
        "b on a GPU": {"evaluate@b-cuda_fp16"},
        "timing of a on a GPU": {"benchmark@a-cuda_fp16"},
        "timing of b on a GPU": {"benchmark@b-cuda_fp16"},
    }
    assert sorted(s for one in apart for s in one.stages) == sorted(s for one in parts for s in one.stages)
    assert schedule.run(apart, Noting()) == []


@pytest.mark.usefixtures("repository")
def test_all_is_stale_where_nothing_was_built_and_parts_keep_only_what_is():
    graph = failures.index_graph()
    stale = schedule.stale(graph)
    assert {stage.name for stage in graph} - {stage.name for stage in stale} == {"environment"}
    kept = schedule.restrict(
        schedule.parts(graph), {stage.addressing for stage in stale if stage.name.startswith("fetch@")}
    )
    assert [(one.name, len(one.stages)) for one in kept] == [("a", 1), ("b", 1)]
