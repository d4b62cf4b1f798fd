"""`kiln compare` names each thing in which two releases, or two reports, differ, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stages import summary
from stages.__main__ import main
from stages.core import params, plan
from stages.core.errors import UserError
from stages.core.files import read_json, write_json
from stages.release import statement
from stages.reporting import results
from tests import workspace


def write(folder: Path, *, cer: float = 0.02, digest: str = "a" * 64, smooth: float = 0.5, ort: str = "1.32") -> Path:
    measured: dict[str, Any] = {
        "verdict": "pass",
        "accuracy": {"offline_cer": {"value": cer, "ci": [0.0, 0.01]}},
        "latency": {"10s_1_thread": {"p50_ms": 2.0, "speedup": 1.5, "ci": [1.4, 1.6]}},
        "artifact": {"bytes": 7, "files": {"model.onnx": digest}},
    }
    definition = {
        "externalParameters": {"build": "my-int8", "recipe": {"smooth": smooth}},
        "resolvedDependencies": [{"name": "model.pt", "digest": {"sha256": "b" * 64}}],
    }
    details = {"builder": {"version": {"onnxruntime": ort}}}
    predicate = {"buildDefinition": definition, "runDetails": details, statement.MEASURED: measured}
    write_json(folder / statement.FILE, {"predicate": predicate})
    return folder


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"cer": 0.03}, "| accuracy `offline_cer`, drift | 0.0200, [0.0000, +0.0100] | 0.0300, [0.0000, +0.0100] |"),
        ({"digest": "c" * 64}, f"| `model.onnx` | `{'a' * 16}` | `{'c' * 16}` |"),
        ({"smooth": 0.25}, "| recipe smooth | `0.5` | `0.25` |"),
        ({"ort": "1.33"}, "| with `onnxruntime` | `1.32` | `1.33` |"),
    ],
    ids=["accuracy", "graph", "recipe", "library"],
)
def test_what_differs_is_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], line: str):
    main(["compare", str(write(tmp_path / "old")), str(write(tmp_path / "new", **change))])
    head, _, *lines = capsys.readouterr().out.splitlines()
    assert lines == [line]
    assert head == f"| | `{tmp_path / 'old'}` | `{tmp_path / 'new'}` |"


def test_two_alike(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    main(["compare", str(write(tmp_path / "old")), str(write(tmp_path / "new"))])
    assert capsys.readouterr().out.endswith("do not differ.\n")


def test_what_is_no_release_is_named(tmp_path: Path):
    write_json(tmp_path / statement.FILE, {"predicate": []})
    with pytest.raises(UserError, match=r"provenance\.json is not a statement of Kiln's"):
        main(["compare", str(tmp_path), str(tmp_path)])


def report(root: Path, place: Path, *, cpu: str = "A CPU", **builds: dict[str, Any]) -> Path:
    """Write the report of a measured workspace into a folder, with changed entries."""
    p = params.load()
    entries = {name: results.build_entry(p, name) for name in plan.derive(p).builds}
    for name, change in builds.items():
        entries[f"{workspace.MODEL}-{name}"] |= change
    write_json(root / place / "summary.json", summary.summary(entries, {}, results.environment() | {"cpu": cpu}))
    return place


def rows(before: Path, after: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    main(["compare", str(before), str(after)])
    return capsys.readouterr().out.splitlines()


def test_two_reports_that_are_alike(root: Path, capsys: pytest.CaptureFixture[str]):
    old, new = report(root, Path("old")), report(root, Path("new"))
    assert rows(old, new, capsys) == ["4 builds do not differ.", "Measured on `A CPU`."]


def test_a_row_for_each_build_in_which_two_reports_differ(root: Path, capsys: pytest.CaptureFixture[str]):
    worse = workspace.accuracy("bad")["metrics"][workspace.AGREEMENT] | {"verdict": "fail", "limit": 0.01}
    changes = {"verdict": "fail", "accuracy": {workspace.AGREEMENT: worse}, "latency": {}}
    old, new = report(root, Path("old")), report(root, Path("new"), cpu="Another", good=changes)
    head, _, row, _, others, where = rows(old, new, capsys)
    assert head == "| build | verdict | accuracy, drift | latency, speedup | size |"
    name, verdict, accuracy, latency, size = (cell.strip() for cell in row.strip("|").split("|"))
    assert (name, verdict, size) == ("`fsmn_vad-good`", "pass → **fail**", "6 B")
    was, now = "0.9970, [-0.0040, -0.0020]", "0.9700, [-0.0400, -0.0200]"
    error = "`streaming_truth_miss_rate` 0.1010, [0.0000, +0.0020] → **-**"
    assert accuracy == f"`{workspace.AGREEMENT}` {was} → **{now}**<br>{error}"
    assert latency.startswith("`chunk` 0.500 ms, 1.00x [0.95, 1.05] → **-**<br>`10s` 20.0 ms, ")
    assert (others, where) == ("3 builds do not differ.", "Measured on `Another`, before on `A CPU`.")


def test_a_pipeline_is_compared_by_its_real_time_factor(root: Path, capsys: pytest.CaptureFixture[str]):
    old, new = report(root, Path("old")), report(root, Path("new"))
    for place, rtf in ((old, 0.0123), (new, 0.0072)):
        found = read_json(place / "summary.json")
        entry = found["builds"]["fsmn_vad-good"]
        case = {"rtf": rtf, "speedup": 1.0, "ci": [0.9, 1.1], "limit": None, "verdict": None}
        found["pipelines"] = {"speech": entry | {"latency": {"pipeline_1_thread": case}}}
        write_json(place / "summary.json", found)
    row = rows(old, new, capsys)[2]
    was, now = "rtf 0.0123, 1.00x [0.90, 1.10]", "rtf 0.0072, 1.00x [0.90, 1.10]"
    assert f"| `pipeline` {was} → **{now}** |" in row


def test_a_build_that_one_report_lacks(root: Path, capsys: pytest.CaptureFixture[str]):
    old, new = report(root, Path("old")), report(root, Path("new"))
    found = read_json(old / "summary.json")
    del found["builds"]["fsmn_vad-absent"]
    write_json(old / "summary.json", found)
    assert rows(old, new, capsys)[2] == "| `fsmn_vad-absent` | - → **unavailable** | - | - | - → **6 B** |"


def test_a_report_and_a_release_cannot_be_compared(root: Path, tmp_path: Path):
    old, new = write(tmp_path / "release"), report(root, Path("new"))
    with pytest.raises(UserError, match=r"new is the report of all builds and .*release is none: it has no summary"):
        main(["compare", str(old), str(new)])


@pytest.mark.parametrize("found", [[], {}, {"builds": {}, "pipelines": {}}, {"builds": {"a": {}}, "pipelines": {}}])
def test_a_report_of_something_else_is_named(root: Path, tmp_path: Path, found: object):
    write_json(tmp_path / "other" / "summary.json", found)
    with pytest.raises(UserError, match=r"other/summary\.json is not a summary of this version of Kiln"):
        main(["compare", str(tmp_path / "other"), str(report(root, Path("new")))])
