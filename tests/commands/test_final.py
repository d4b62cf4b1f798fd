"""The sealed split: who has none is told so, and no stage of a build names it."""

from __future__ import annotations

import shutil
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from stages.commands import final
from stages.core import params, plan
from stages.core.errors import UserError
from stages.core.params.origins import SyntheticDataset
from stages.corpora import manifest
from stages.corpus import corpus
from tests import workspace


def _edit(path: Path, change: Callable[[Any], object]) -> None:
    yaml = YAML()
    settings = yaml.load(path)
    change(settings)
    yaml.dump(settings, path)


def test_what_was_not_built_is_named_before_data_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    workspace.make(tmp_path)
    shutil.rmtree("artifacts/fsmn_vad/dense/int8")
    with pytest.raises(UserError, match=r"artifacts/fsmn_vad/dense/int8 is not there: `kiln repro` makes"):
        final.run(Namespace())


def test_without_the_split_there_is_nothing_to_measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    workspace.make(tmp_path)
    _edit(tmp_path / "params.yaml", lambda settings: settings["datasets"]["vad_mixtures"]["mixtures"].pop("final"))
    with pytest.raises(UserError, match=r"no data set of a required build has final\.jsonl: nothing to measure"):
        final.run(Namespace())
    assert not Path("reports/final.md").exists()


@pytest.mark.parametrize("kind", ["punctuated_text", "spoken_commands"])
def test_a_build_does_not_make_it_and_what_it_makes_is_the_same_beside_it(kind: str, tmp_path: Path):
    items = {"calibration": 2, "tuning": 2, "evaluation": 6, "final": 3}
    dataset = SyntheticDataset.model_validate({"kind": kind, "path": "data", "seed": 1, "items": items})
    folders = {sealed: tmp_path / str(sealed) for sealed in (False, True)}
    for sealed, folder in folders.items():
        corpus(dataset, folder, sealed=sealed)
    assert set(manifest.splits(folders[False])) == set(manifest.SPLITS)
    assert len(manifest.read(folders[True], manifest.FINAL)) == 3
    for split in manifest.SPLITS:
        assert (folders[False] / f"{split}.jsonl").read_bytes() == (folders[True] / f"{split}.jsonl").read_bytes()


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


def test_a_metric_of_which_the_split_has_nothing_is_a_row_that_says_so():
    nothing: dict[str, Any] = {"baseline": None, "value": None, "drift": None, "ci": None, "limit": 0.01}
    row = final._row("my_asr-cpu_int8", "woitn_emotion_accuracy", nothing | {"verdict": "inconclusive"}, 20)
    assert row == "| my_asr-cpu_int8 | 20 | woitn_emotion_accuracy | - | nothing to measure | 0.01 | inconclusive |"


@pytest.fixture
def evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Measures the made up builds on one text; gives the rows and with how many processes each was scored."""
    monkeypatch.chdir(tmp_path)
    workspace.make(tmp_path)
    (tmp_path / "data").mkdir()
    manifest.write(tmp_path / "data", "final", [manifest.Line(id="a", text="a")])
    monkeypatch.setattr(final, "_locate_final", lambda *_: tmp_path / "data")
    for name in ("write_reference", "load_artifact"):
        monkeypatch.setattr(final, name, lambda *_: None)

    def measured(**found: Any) -> tuple[list[str], list[int | None]]:
        asked: list[int | None] = []

        def evaluate(*_: object, processes: int | None) -> dict[str, Any]:
            asked.append(processes)
            return workspace.accuracy("good") | found

        monkeypatch.setattr(final, "evaluate", evaluate)
        return list(final.measure(params.load(), workspace.MODEL, tmp_path)), asked

    return measured


def test_outputs_that_are_nan_fail_whatever_the_metric_says(evaluated: Any):
    rows, _ = evaluated(not_finite=3)
    assert rows
    assert all(row.endswith("| fail: NaN or infinite numbers in 3 recordings |") for row in rows)


def test_what_cannot_be_forked_is_run_by_one_process(evaluated: Any, monkeypatch: pytest.MonkeyPatch):
    _, asked = evaluated()
    monkeypatch.setattr("stages.evaluate.FORKABLE", ())
    _, asked_then = evaluated()
    assert set(asked) == {None}
    assert set(asked_then) == {1}
