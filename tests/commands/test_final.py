"""The sealed split: who has none is told so, and no stage of a build names it."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest

from stages.commands import final
from stages.core import params, plan
from stages.core.errors import UserError
from tests import workspace


def test_without_the_split_there_is_nothing_to_measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    workspace.make(tmp_path)
    with pytest.raises(UserError, match=r"no data set of a required build has final\.jsonl: nothing to measure"):
        final.run(Namespace())
    assert not Path("reports/final.md").exists()


def test_a_build_is_evaluated_on_another_split():
    assert params.load(workspace.ROOT / "params.yaml").evaluate.split != "final"


def test_who_need_not_pass_the_gate_is_not_measured():
    p = params.load(workspace.ROOT / "params.yaml")
    builds = plan.derive(p).builds
    gate = p.gates[p.targets["cpu_pruned"].gate]
    assert final.is_measured(p, builds["paraformer-cpu_pruned"])
    gate.optional["paraformer"] = "a reason"
    assert not final.is_measured(p, builds["paraformer-cpu_pruned"])
    assert not final.is_measured(p, builds["paraformer-cpu_fp32"])
