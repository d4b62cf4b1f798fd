"""What `make gpu` found is on the pages of a build that cannot run here, and decides nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stages import report, summary
from stages.core import layout
from stages.core.errors import UserError
from stages.core.files import read_json, sha256
from stages.reporting import devices
from tests import workspace
from tests.workspace import ROOT

COMMITTED = ROOT / layout.GPU / "nvidia_h200.json"
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a build that has a TensorRT-RTX engine and no device, and with the committed results."""
    workspace.make(tmp_path)
    monkeypatch.chdir(tmp_path)
    layout.GPU.mkdir(parents=True)
    shutil.copy(COMMITTED, layout.GPU)
    return tmp_path / layout.GPU / COMMITTED.name


def change(place: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Edit a device's file."""
    found = json.loads(place.read_text())
    edit(found)
    place.write_text(json.dumps(found))


def build(model: str, runtime: str, *, graph: str = "fp16", verdict: str = "unavailable") -> dict[str, Any]:
    """As much of a build's entry as says what it is."""
    return {"model": model, "runtime": runtime, "variant": "dense", "graph": graph, "verdict": verdict}


def test_page_and_markdown_show_the_device_and_the_verdict_stays(place: Path):
    engine = next(row for row in read_json(place)["parts"]["engines"] if row["model"] == workspace.MODEL)
    report.main(["absent"])
    page, markdown = (Path("reports/absent", file).read_text() for file in ("index.html", "report.md"))
    assert "Not measured, and not passed" in page
    assert "<h3>On another machine: NVIDIA H200, 9.0, 580.159.04</h3>" in page
    assert "Measured on 2026-11-27 by <code>make gpu</code>, of other files than this build&#39;s" in page
    assert engine["why_not"] in page
    assert "### `fsmn_vad-absent`: unavailable\n" in markdown
    assert "- Not counted: `make gpu` on NVIDIA H200, 9.0, 580.159.04, 2026-11-27, of other files" in markdown
    assert json.loads(Path("reports/absent/metrics.json").read_text()) == {workspace.MODEL: {"bytes": 6}}


@pytest.mark.usefixtures("place")
def test_overview_shows_it_and_what_the_gate_reads_does_not():
    summary.main([])
    assert Path("reports/index.html").read_text().count("Not counted: on NVIDIA H200") == 1  # of the one that is absent
    assert "H200" not in Path("reports/summary.json").read_text()


def test_the_same_files_are_known_by_their_digest(place: Path):
    digest = sha256(layout.graphs(workspace.MODEL, "dense", "fp16") / "model.onnx")

    def set_digest(found: dict[str, Any]) -> None:
        for row in found["parts"]["engines"]:
            row["sha256"] = digest

    change(place, set_digest)
    report.main(["absent"])
    assert "of the same ONNX files as here" in Path("reports/absent/index.html").read_text()


def test_without_a_digest_it_says_that_nobody_knows_of_which_files(place: Path):
    change(place, lambda found: [row.pop("sha256") for row in found["parts"]["engines"]])
    report.main(["absent"])
    assert "of files that nobody can compare with those here" in Path("reports/absent/index.html").read_text()


@pytest.mark.usefixtures("place")
def test_accuracy_and_latency_are_of_the_runtime_that_measured_them():
    entries = {
        "cuda": build("paraformer", "onnxruntime_cuda"),
        "other": build("paraformer", "tensorrt"),
        "measured here": build("paraformer", "onnxruntime_cuda", verdict="pass"),
        "other graph": build("paraformer", "onnxruntime_cuda", graph="int8"),
        "unknown": build("my_model", "onnxruntime_cuda"),
    }
    found = devices.collect_elsewhere(entries)
    assert set(found) == {"cuda", "other"}
    [cuda], [other] = found.values()
    assert cuda.describe().startswith("offline_cer 0.1649, drift +0.0000 [+0.0000, +0.0652]; 3s_1_thread 0.31x")
    assert len(cuda.latency) == 4
    assert other.describe().startswith("tensorrt is not installed")


def test_what_a_device_s_file_says_is_escaped(place: Path):
    def set_hostile(found: dict[str, Any]) -> None:
        found["machine"]["gpu"] = HOSTILE
        for row in found["parts"]["engines"]:
            row["why_not"] = HOSTILE

    change(place, set_hostile)
    report.main(["absent"])
    summary.main([])
    pages = ("absent/index.html", "absent/report.md", "index.html")
    assert all("<script" not in Path("reports", page).read_text() for page in pages)


def test_a_part_that_failed_there_is_no_measurement(place: Path):
    failed = {"model": workspace.MODEL, "failed": "stopped after 100 s"}
    change(place, lambda found: found["parts"].update(engines=[failed]))
    report.main(["absent"])
    assert "On another machine" not in Path("reports/absent/index.html").read_text()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("{", "the file: Invalid JSON", id="cut off"),
        pytest.param("[]", "the file: Input should be an object", id="no object"),
        pytest.param('{"parts": {}}', "machine: Field required", id="no machine"),
        pytest.param('{"machine": {"gpu": 1}, "parts": {}}', "machine.gpu: Input should be a valid string", id="type"),
    ],
)
def test_a_file_that_make_gpu_did_not_write_is_one_line(place: Path, text: str, said: str):
    place.write_text(text)
    with pytest.raises(UserError) as error:
        report.main(["absent"])
    assert str(error.value).startswith(f"{layout.GPU / place.name}: {said}")
    assert "\n" not in str(error.value)
