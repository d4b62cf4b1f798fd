"""How busy the machine is, by what the kernel counts or, without such a count, by its load."""

from __future__ import annotations

import time
from pathlib import Path

import psutil
import pytest

from stages.core import contention
from stages.core.contention import Watch, own_wait

FULL = "full avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which the test sets."""
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


@pytest.mark.parametrize(("waited", "share"), [(0, 0), (500_000, 0.25), (2_100_000, 1)], ids=["none", "some", "all"])
def test_what_waited_meanwhile_counts(monkeypatch, tmp_path: Path, clock: list[float], waited: int, share: float):
    monkeypatch.setattr(contention, "PRESSURE", tmp_path / "cpu")
    contention.PRESSURE.write_text(f"some avg10=97.89 avg60=98.92 avg300=99.39 total=8602815789\n{FULL}")
    watch = Watch()
    clock[0] += 2
    contention.PRESSURE.write_text(f"some avg10=0.00 avg60=0.00 avg300=0.00 total={8602815789 + waited}\n{FULL}")
    assert watch.share() == pytest.approx(share)


@pytest.mark.parametrize(("load", "share"), [(3.0, 0), (6.0, 0.5), (40.0, 1)], ids=["idle", "half", "full"])
@pytest.mark.usefixtures("clock")
def test_a_kernel_without_the_count_tells_by_its_load(monkeypatch, tmp_path: Path, load: float, share: float):
    monkeypatch.setattr(contention, "PRESSURE", tmp_path / "absent")
    monkeypatch.setattr(psutil, "getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.setattr(psutil, "cpu_count", lambda: 4)
    assert Watch().share() == pytest.approx(share)


def test_a_thread_s_own_wait_is_read_while_it_lasts(monkeypatch, tmp_path: Path):
    monkeypatch.setattr(contention, "QUEUE", tmp_path / "schedstat")
    contention.QUEUE.write_text("800 200 7\n")
    with own_wait() as waited:
        assert waited() == 200
        contention.QUEUE.write_text("900 5200 8\n")
        assert waited() == 5200


def test_a_kernel_that_counts_no_waits_has_none(monkeypatch, tmp_path: Path):
    monkeypatch.setattr(contention, "QUEUE", tmp_path / "absent")
    with own_wait() as waited:
        assert waited() == 0
