"""What failed is on record with its reason until the next build begins, and counts for all that needs it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from stages.core import failures
from stages.core.errors import UserError, entrypoint


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    failures.clear()


def run(monkeypatch: pytest.MonkeyPatch, error: BaseException | None, *argv: str) -> object:
    """What a stage that ends like that exits with."""

    def main(_: object) -> None:
        if error is not None:
            raise error

    monkeypatch.setattr(sys, "argv", list(argv))
    with pytest.raises((SystemExit, ValueError, OSError)) as stopped:
        entrypoint(main)
    return getattr(stopped.value, "code", stopped.value)


def test_a_mistake_and_a_bug_leave_their_reason_and_success_takes_it_away(monkeypatch):
    run(monkeypatch, UserError("model.pt is truncated"), "stages/export.py", "a-dense")
    run(monkeypatch, ValueError("two\nlines"), "stages/prune.py", "a")
    assert failures.known() == {"export@a-dense": "model.pt is truncated", "prune@a": "ValueError: two\nlines"}
    assert run(monkeypatch, None, "stages/export.py", "a-dense") == 0
    assert set(failures.known()) == {"prune@a"}
    failures.clear()
    assert failures.known() == {}


@pytest.mark.parametrize(
    "argv",
    [
        pytest.param(("stages/__main__.py", "pin"), id="command"),
        pytest.param(("stages/gate.py",), id="gate"),
        pytest.param(("stages/simplify.py", "--in-child", "a", "b"), id="child"),
    ],
)
def test_what_is_no_stage_of_a_build_is_not_on_record(monkeypatch, argv: tuple[str, ...]):
    run(monkeypatch, UserError("no"), *argv)
    assert failures.known() == {}
