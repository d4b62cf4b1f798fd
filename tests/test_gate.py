from __future__ import annotations

import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from stages import gate, summary
from stages.core import layout, params, plan
from stages.core.errors import UserError, entrypoint
from stages.core.files import read_json, write_json
from stages.reporting import results
from tests import workspace


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Write a workspace whose targets are required as asked, and its summary."""
    monkeypatch.chdir(tmp_path)

    def build(**required: bool) -> None:
        workspace.make(tmp_path, **required)
        p = params.load()
        entries = {name: results.build_entry(p, name) for name in plan.derive(p).builds}
        write_json(layout.SUMMARY, summary.summary(entries, {}, results.environment()))

    return build


def status(monkeypatch: pytest.MonkeyPatch) -> object:
    """What `python -m stages.gate` exits with: 0, or a text that is printed for status 1."""
    monkeypatch.setattr(sys, "argv", ["gate"])
    with pytest.raises(SystemExit) as stopped:
        entrypoint(gate.main)
    return stopped.value.code


def test_a_line_for_each_failing_metric_with_build_value_interval_and_limit(built, monkeypatch):
    built()
    head, *lines = str(status(monkeypatch)).splitlines()
    assert head == "error: the gate is closed:"
    bad, unsure = "0.9700, drift -0.0300 [-0.0400, -0.0200]", "0.9875, drift -0.0125 [-0.0200, -0.0050]"
    assert lines == [
        f"  fsmn_vad-bad: fail: offline_frame_agreement: {bad}, loss at most 0.01",
        f"  fsmn_vad-unsure: inconclusive: offline_frame_agreement: {unsure}, loss at most 0.01",
    ]


def test_a_model_that_need_not_pass_a_gate_does_not_close_it_and_the_reason_is_said(built, monkeypatch, capsys):
    original = workspace.make

    def excused(root: Path, **required: bool) -> None:
        original(root, **required)
        settings = YAML(typ="safe").load(root / "params.yaml")
        settings["gates"]["lenient"] = settings["gates"]["usual"] | {"optional": {workspace.MODEL: "no redundancy"}}
        for name in ("bad", "unsure", "absent"):
            settings["targets"][name]["gate"] = "lenient"
        YAML().dump(settings, root / "params.yaml")

    monkeypatch.setattr(workspace, "make", excused)
    built()
    gate.main([])
    said = capsys.readouterr().out
    assert "gate: fsmn_vad-bad: fail, not required (no redundancy): " in said
    assert f"gate: fsmn_vad-absent: unavailable, not required: {workspace.WHY_ABSENT}" in said


def test_a_build_that_fails_on_two_metrics_has_two_lines(built, monkeypatch):
    built(unsure=False)
    found = read_json(layout.SUMMARY)
    slow = found["builds"]["fsmn_vad-bad"]["latency"]["10s_1_thread"]
    slow |= {"limit": 1.2, "verdict": "fail"}
    write_json(layout.SUMMARY, found)
    lines = str(status(monkeypatch)).splitlines()[1:]
    assert [line.split(": ")[2] for line in lines] == ["offline_frame_agreement", "10s_1_thread"]
    assert lines[1].endswith("0.80x [0.75, 0.85], at least 1.2x")


def test_outputs_that_are_nan_are_said_whatever_the_metrics_say(built, monkeypatch):
    built(unsure=False)
    found = read_json(layout.SUMMARY)
    found["builds"]["fsmn_vad-bad"]["reason"] = "its outputs were NaN or infinite in 3 recordings"
    write_json(layout.SUMMARY, found)
    assert str(status(monkeypatch)).splitlines()[1:] == [
        "  fsmn_vad-bad: fail: its outputs were NaN or infinite in 3 recordings"
    ]


def test_all_required_pass_and_an_unavailable_build_that_is_not_required_does_not_matter(built, monkeypatch, capsys):
    built(bad=False, unsure=False)
    assert status(monkeypatch) == 0
    out = capsys.readouterr().out
    assert "gate: all 1 required builds passed" in out
    assert f"gate: fsmn_vad-absent: unavailable, not required: {workspace.WHY_ABSENT}" in out


def test_unavailable_and_required_closes_the_gate(built, monkeypatch):
    built(bad=False, unsure=False, absent=True)
    assert str(status(monkeypatch)).splitlines()[1:] == [f"  fsmn_vad-absent: unavailable: {workspace.WHY_ABSENT}"]


def test_a_baseline_that_says_nothing_is_no_pass_whatever_the_drift(built, monkeypatch):
    built(bad=False, unsure=False)
    text = Path("params.yaml").read_text()
    raw = YAML(typ="safe").load(text)
    raw["baselines"]["fsmn_vad"] = {workspace.ERROR: 0.05}
    YAML().dump(raw, Path("params.yaml"))
    entry = results.build_entry(params.load(), "fsmn_vad-good")
    assert entry["verdict"] == "baseline"
    write_json(layout.SUMMARY, summary.summary({"fsmn_vad-good": entry}, {}, results.environment()))
    assert str(status(monkeypatch)).splitlines()[1:] == [
        (
            "  fsmn_vad-good: baseline: says nothing here: "
            "the fp32 model has streaming_truth_miss_rate 0.1000, wanted at most 0.05"
        )
    ]


def test_the_baseline_is_held_to_its_floor_on_all_recordings_though_a_build_is_judged_on_few(built):
    built()
    place = layout.measurements("good", "fsmn_vad") / "accuracy.json"
    few = read_json(place)
    floor = params.load().baselines["fsmn_vad"][workspace.ERROR]
    for found, verdict in ((floor + 0.01, "baseline"), (floor - 0.01, "pass")):
        write_json(place, few | {"baseline": {workspace.ERROR: found}})
        assert results.build_entry(params.load(), "fsmn_vad-good")["verdict"] == verdict


def test_data_without_what_a_floor_counts_is_told_what_to_add_or_to_take_out(built):
    built()
    place = layout.measurements("good", "fsmn_vad") / "accuracy.json"
    write_json(place, read_json(place) | {"baseline": {workspace.ERROR: None}})
    entry = results.build_entry(params.load(), "fsmn_vad-good")
    assert entry["verdict"] == "baseline"
    assert "nothing to measure streaming_truth_miss_rate by; add that, or take these metrics out" in entry["reason"]


def test_a_score_of_the_baseline_must_reach_its_floor(built):
    built()
    raw = YAML(typ="safe").load(Path("params.yaml"))
    raw["baselines"]["fsmn_vad"] = {workspace.AGREEMENT: 1.5}
    YAML().dump(raw, Path("params.yaml"))
    assert results.build_entry(params.load(), "fsmn_vad-good")["reason"].endswith("1.0000, wanted at least 1.5")


def test_a_floor_of_what_is_not_measured_is_refused(built):
    built()
    raw = YAML(typ="safe").load(Path("params.yaml"))
    raw["baselines"]["fsmn_vad"] = {"streaming_truth_f2": 0.5}
    YAML().dump(raw, Path("params.yaml"))
    with pytest.raises(
        UserError, match=r"baselines\.fsmn_vad: unknown metric 'streaming_truth_f2'; did you mean 'streaming_truth_f1'"
    ):
        results.build_entry(params.load(), "fsmn_vad-good")


def test_nothing_required_proves_nothing(built):
    built(good=False, bad=False, unsure=False)
    with pytest.raises(UserError, match="no required build"):
        gate.main([])


def test_without_a_summary(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert status(monkeypatch) == "error: reports/summary.json is not there; `dvc repro` makes it"


def test_arguments_are_refused():
    with pytest.raises(SystemExit, match="2"):
        gate.main(["now"])
