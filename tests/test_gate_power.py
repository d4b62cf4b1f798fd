"""The simulation of the gate draws speakers whole, opens for what lost nothing and refuses what lost a tenth."""

from __future__ import annotations

import numpy as np

from benchmarks import gate_power
from benchmarks.gate_power import Scored
from stages.core.params.gates import RelativeLimit
from stages.core.statistics import Groups, Metric


def scored(recordings_each: int, speakers: int = 1200) -> Scored:
    """Make a build that loses nothing against a baseline with a fifth of twelve characters wrong."""
    names = [f"speaker {n}" for n in range(speakers) for _ in range(recordings_each)]
    errors = np.random.default_rng(0).binomial(12, 0.2, len(names)).astype(float)
    lengths = np.full(len(names), 12.0)
    return Scored(
        build="tiny-cpu_int8",
        dataset="tiny",
        looks=((0.5, 0.99), (1.0, 0.96)),
        worst=None,
        limits={"offline_cer": RelativeLimit(relative=0.05, least=0.001)},
        metrics={"offline_cer": Metric(higher_is_better=False)},
        columns={"offline_cer": (errors, lengths, errors, lengths)},
        groups=Groups(names, names, [""] * len(names)),
    )


def test_a_speaker_is_drawn_with_all_recordings_and_twice_is_two():
    build = scored(recordings_each=2, speakers=50)
    drawn = gate_power.redraw(build, np.random.default_rng(1))
    clusters = gate_power._take_groups(build.groups, drawn).clusters
    assert len(drawn) == 100
    assert len(set(clusters)) == 50
    assert {clusters.count(name) for name in clusters} == {2}


def test_the_gate_opens_for_what_lost_nothing_and_refuses_a_tenth_more_errors():
    found = gate_power.power([scored(recordings_each=1)], redraws=10)
    key = "tiny-cpu_int8", "offline_cer"
    assert (found.opened, found.passed[key], found.refused[key]) == (10, 10, 10)
