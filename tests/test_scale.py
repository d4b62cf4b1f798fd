"""`make scale`: which models it takes, the batch that it adds, and the tables of what it found."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks import scale, scale_tables
from benchmarks.scale_tables import Record, Row, Speed, Step
from stages.commands import catalogue
from stages.core import graphs
from stages.core.graphs import Axis, Case, Graph, GraphSet, Tensor

STEPS = [Step("export dense", 35.04, 300.0, 100.0), Step("prune", 90.0, 250.0, 60.2)]
SPEEDS = [
    Speed("cpu_int8", "3s", "1", 120.0, 3.14, [3.0, 3.3]),
    Speed("cpu_pruned_int8", "3s", "1", 121.0, 4.2, [4.1, 4.3]),
]
FLOORS = {"cpu_int8": [Row("3s", {"int8": 20.0, "fp32": 1.0, "attention": 2.0, "rest": 5.0}, 35.0)]}
RECORD = Record("a_model", 100.0, STEPS, SPEEDS, FLOORS)
BATCHED = GraphSet(
    graphs={
        "model": Graph(
            file="model.onnx",
            inputs={"lengths": Tensor(dtype="int32", shape=["batch"], length_of="frames")},
            outputs={},
            states={},
            axes={"batch": Axis(min=1, opt=1, max=8), "frames": Axis(min=1, opt=50, max=1000)},
        )
    },
    cases={f"{s}s": Case(sizes={"batch": 1, "frames": frames}, seconds=s) for s, frames in ((3, 50), (10, 167))},
)


def test_without_a_name_every_one_is_of_the_catalogue():
    assert set(scale.MODELS) <= catalogue.models().keys()


def test_an_unknown_model_is_refused_with_the_name_that_was_meant():
    with pytest.raises(SystemExit, match="no model 'paraformer_lage'; did you mean 'paraformer_large'"):
        scale.main(["paraformer_lage"])


def test_a_batch_has_rows_of_unequal_lengths_and_is_not_what_memory_is_measured_of(tmp_path: Path):
    graphs.write(tmp_path, BATCHED)
    scale.add_batch(tmp_path)
    graph_set = graphs.read(tmp_path)
    assert list(graph_set.cases) == ["8x3s", "3s", "10s"]
    feeds = graphs.example_feeds(graph_set.graphs["model"], graph_set.cases["8x3s"].sizes, 0)
    assert feeds["lengths"].tolist() == [50, 33, 22, 14, 9, 6, 4, 2]


def test_graphs_of_one_recording_get_no_batch(tiny_export: Path, tmp_path: Path):
    shutil.copy(tiny_export / graphs.FILE, tmp_path)
    before = graphs.read(tmp_path)
    scale.add_batch(tmp_path)
    assert graphs.read(tmp_path) == before


def test_costs_are_multiples_of_the_checkpoint():
    assert list(scale_tables.costs([RECORD]))[2:] == [
        "| export dense | 35.0 s, 3.0x, +100 |",
        "| prune | 90.0 s, 2.5x, +60 |",
        "| all | 125 s, 3.0x, +160 |",
    ]


def test_builds_stand_beside_each_other():
    (row,) = list(scale_tables.speeds([RECORD]))[2:]
    assert row == "| a_model | 3s | 1 | 120.0 |  | 3.14x [3.00, 3.30] |  | 4.20x [4.10, 4.30] |"


def test_the_share_is_the_floor_over_what_was_measured():
    (row,) = list(scale_tables.shares([RECORD]))[2:]
    assert row == "| a_model | 3s |  | 28.0 / 35.0 = 0.80 |  |  |"
