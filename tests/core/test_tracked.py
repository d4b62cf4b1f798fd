"""A stage whose settings change while it runs fails; what else changes is none of its business."""

from __future__ import annotations

from pathlib import Path

import pytest

from stages.core import tracked
from stages.core.errors import UserError
from tests import workspace
from tests.workspace import ROOT


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return workspace.repository(tmp_path_factory.mktemp("repository"))


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        pytest.param("export@paraformer-dense", r"export was \{'opset': 18\} and is \{'opset': 19", id="its-own"),
        pytest.param("simplify@paraformer-dense", None, id="another-s"),
    ],
)
def test_a_stage_s_own_settings(repository: Path, monkeypatch: pytest.MonkeyPatch, stage: str, said: str | None):
    monkeypatch.chdir(repository)
    before = (ROOT / "params.yaml").read_text()
    Path("params.yaml").write_text(before.replace("  opset: 18", "  opset: 19"))
    if said is None:
        tracked.refuse_changed(before, stage)
    else:
        with pytest.raises(UserError, match=f"params.yaml changed while this ran: {said}.*; run it again"):
            tracked.refuse_changed(before, stage)


def test_no_change_and_no_repository_are_no_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert tracked.text() is None
    Path("params.yaml").write_text("export: {opset: 18}\n")
    tracked.refuse_changed(tracked.text(), "export@a")
    tracked.refuse_changed("export: {opset: 17}\n", "export@a")
