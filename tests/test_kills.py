"""A kill at the worst moments costs no byte and no finished stage; benchmarks/kills.py does this a hundred times."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import kills


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("project").resolve()
    kills.make(place)
    return place


@pytest.mark.parametrize(
    ("kill", "moment"),
    [
        pytest.param("build killed", "dvc.lock:2:0.6", id="first-build-while-a-lock-is-half-written"),
        pytest.param("build terminated", "rwlock:6:0.5", id="first-build-while-it-notes-who-writes-what"),
    ],
)
def test_nothing_is_lost(project: Path, kill: str, moment: str):
    counts = kills.Counts()
    kills.trial(project, counts, first=True, kill=kill, moment=moment)
    assert counts.faults == []
    assert counts.kills.total() == 1
