from __future__ import annotations

import contextlib
import csv
import itertools
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stages import summary
from stages.core import params
from stages.core.errors import entrypoint
from stages.reporting import drawing, figures, results
from tests import workspace


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What the stage leaves."""
    folder = tmp_path_factory.mktemp("summary")
    workspace.make(folder)
    with contextlib.chdir(folder):
        summary.main([])
        yield folder / "reports"


def test_summary_json_has_the_documented_keys(reports: Path):
    found = json.loads((reports / "summary.json").read_text())
    assert set(found) == {"environment", "builds", "pipelines"}
    assert found["environment"]["cpu"] == "A CPU, 2 cores, avx512_vnni"
    assert {name: build["verdict"] for name, build in found["builds"].items()} == {
        "fsmn_vad-good": "pass",
        "fsmn_vad-bad": "fail",
        "fsmn_vad-unsure": "inconclusive",
        "fsmn_vad-absent": "unavailable",
    }
    for build in found["builds"].values():
        assert {"model", "target", "verdict", "reason", "artifact", "accuracy", "latency", "required"} <= set(build)
        assert {"path", "sha256", "bytes"} <= set(build["artifact"])
        for measured in build["accuracy"].values():
            assert {"baseline", "value", "drift", "ci", "limit", "verdict"} <= set(measured)
        for measured in build["latency"].values():
            assert {"p50_ms", "baseline_p50_ms", "speedup", "ci"} <= set(measured)


def test_summary_json_leaves_out_what_is_bulky(reports: Path):
    assert not re.search("quantiles_ms|by_recording|recording-0", (reports / "summary.json").read_text())


def test_page_shows_every_build_and_plot_and_needs_nothing_beside_it(reports: Path):
    page = (reports / "index.html").read_text()
    for target, verdict in [("good", "pass"), ("bad", "fail"), ("unsure", "inconclusive"), ("absent", "unavailable")]:
        assert re.search(
            rf'href="{target}/index.html">fsmn_vad-{target}</a></th><td><span class="verdict {verdict}"', page
        )
    # accuracy against speedup, drift, a latency panel for each case, size
    assert page.count("<svg") == 3 + len(workspace.CASES)
    assert all(label in page for label in ("good (pass)", "bad (fail)", "unsure (inconclusive)"))
    assert not re.search(r"https?:|<script|@import|url\((?!#)", page)
    assert str(reports.parent) not in page


@pytest.mark.usefixtures("root")
def test_page_without_any_measurement():
    p = params.load()
    page = summary.page(
        {"fsmn_vad-absent": results.build_entry(p, "fsmn_vad-absent")}, {}, results.environment(), "95%"
    )
    assert page.count("<svg") == 1
    assert workspace.WHY_ABSENT in page


def test_the_same_measurements_give_the_same_bytes(root: Path, reports: Path):
    summary.main([])
    for file in ["index.html", "summary.json", "plots/accuracy_latency.csv", "plots/latency.csv"]:
        assert (root / "reports" / file).read_bytes() == (reports / file).read_bytes()


def test_tables_for_dvc_plots(reports: Path):
    with (reports / "plots/accuracy_latency.csv").open() as f:
        rows = list(csv.DictReader(f))
    assert [row["case"] for row in rows if row["build"] == "fsmn_vad-good"] == ["chunk", "10s"]
    assert {float(row["speedup"]) for row in rows} == {1.0, 0.8, 1.5}
    with (reports / "plots/latency.csv").open() as f:
        assert len(list(csv.DictReader(f))) == 3 * len(workspace.CASES)


def test_show_prints_a_table_that_fits_a_pipe(
    reports: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(reports.parent)
    summary.main(["--show"])
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert "\x1b" not in out
    assert max(map(len, lines)) <= 128
    assert lines[0].split() == ["build", "verdict", "truth", "drift", "speedup", "size", "required"]
    at = next(number for number, line in enumerate(lines) if line.startswith("fsmn_vad-bad "))
    assert " ".join(lines[at].split()) == "fsmn_vad-bad fail 0.1000 0.1010 -0.0300 0.80x [0.75, 0.85] 4 B yes"
    assert " ".join(lines[at + 1].split()) == "[-0.0400, -0.0200] 0.80x [0.75, 0.85]"
    assert any(line.startswith("fsmn_vad-unsure: busy: for 0.34 of the time") for line in lines)
    assert not any(line.startswith("fsmn_vad-good: busy") for line in lines)
    assert any(line.split()[:3] == ["fsmn_vad-absent", "unavailable", "-"] for line in lines)
    assert f"fsmn_vad-absent: unavailable: {workspace.WHY_ABSENT}" in lines
    assert lines[-1] == "report: reports/index.html"


def test_show_without_a_summary_is_one_line_and_status_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["summary", "--show"])
    with pytest.raises(SystemExit) as stopped:
        entrypoint(summary.main)
    assert stopped.value.code == "error: reports/summary.json is not there; `dvc repro` makes it"


def test_usage(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stopped:
        summary.main(["--shwo"])
    assert stopped.value.code == 2
    assert "usage" in capsys.readouterr().err


@pytest.mark.usefixtures("root")
def test_labels_of_near_points_do_not_overlap(monkeypatch: pytest.MonkeyPatch):
    entry = results.build_entry(params.load(), "fsmn_vad-good")
    boxes: list[drawing.Box] = []
    label = drawing.label_points

    def labelled(axes, points, taken):
        label(axes, points, taken)
        boxes.extend(taken)

    monkeypatch.setattr(drawing, "label_points", labelled)
    svg = figures.accuracy_speed("fsmn_vad", {f"b{i}": {**entry, "target": f"target_{i}"} for i in range(4)})
    assert len(set(re.findall(r"target_\d \(pass\)", svg))) == 4
    assert not any(drawing._overlap(a, b) for a, b in itertools.combinations(boxes[-4:], 2))
