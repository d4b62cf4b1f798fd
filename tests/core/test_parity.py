"""Parity sees what a user would be hurt by: one frame, silence, carried states, NaN."""

from __future__ import annotations

import numpy as np
import pytest

from stages.core.graphs import Axis, Feeds, Graph, Tensor
from stages.core.parity import largest_differences

GRAPH = Graph(
    file="g.onnx",
    inputs={"x": Tensor(dtype="float32", shape=[1, "time"]), "in_state": Tensor(dtype="float32", shape=[1])},
    outputs={"y": Tensor(dtype="float32", shape=[1, "time"]), "out_state": Tensor(dtype="float32", shape=[1])},
    states={"in_state": "out_state"},
    axes={"time": Axis(min=1, opt=20, max=6000)},
)


def running_sum(feeds: Feeds) -> Feeds:
    y = feeds["in_state"] + np.cumsum(feeds["x"], axis=1)
    return {"y": y, "out_state": y[:, -1]}


def test_a_network_equals_itself_on_every_kind_of_input():
    differences = largest_differences(GRAPH, running_sum, running_sum)
    assert {"shortest", "long", "zeros", "silence", "chunks"} <= set(differences)
    assert len(differences) >= 7
    assert set(differences.values()) == {0.0}


@pytest.mark.parametrize(
    ("broken", "where"),
    [
        pytest.param(lambda f: {**running_sum(f), "out_state": f["in_state"]}, "chunks", id="state-not-carried"),
        pytest.param(
            lambda f: {**running_sum(f), "y": running_sum(f)["y"] / (f["x"].shape[1] > 1)},
            "shortest",
            id="nan-on-one-frame",
        ),
        pytest.param(lambda f: {**running_sum(f), "y": running_sum(f)["y"][:, :90]}, "long", id="cut-short"),
        pytest.param(lambda f: {**running_sum(f), "y": np.log(np.abs(running_sum(f)["y"]))}, "zeros", id="log-of-zero"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
def test_what_is_broken_shows(broken, where: str):
    assert largest_differences(GRAPH, running_sum, broken)[where] > 0.01


def test_a_padded_batch_is_looked_at():
    graph = Graph(
        file="g.onnx",
        inputs={
            "x": Tensor(dtype="float32", shape=["batch", "time"]),
            "lengths": Tensor(dtype="int32", shape=["batch"], length_of="time"),
        },
        outputs={"y": Tensor(dtype="float32", shape=["batch", "time"])},
        states={},
        axes={"batch": Axis(min=1, opt=1, max=4), "time": Axis(min=1, opt=20, max=6000)},
    )

    def masked(feeds: Feeds) -> Feeds:
        return {"y": feeds["x"] * (np.arange(feeds["x"].shape[1]) < feeds["lengths"][:, None])}

    differences = largest_differences(graph, masked, lambda feeds: {"y": feeds["x"]})
    assert {name for name, difference in differences.items() if difference} == {"padded batch"}
