from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from stages import report
from stages.core import params
from stages.core.errors import UserError
from stages.reporting import results
from tests import workspace

HOSTILE = '<script>alert("1")</script>|`x`'
CONFIDENCE = "95%"


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The reports of all targets."""
    folder = tmp_path_factory.mktemp("report")
    workspace.make(folder)
    with contextlib.chdir(folder):
        for target in workspace.GRAPHS:
            report.main([target])
        yield folder / "reports"


def entries(*names: str) -> dict[str, Any]:
    p = params.load()
    return {f"{workspace.MODEL}-{name}": results.build_entry(p, f"{workspace.MODEL}-{name}") for name in names}


def leaves(value: Any) -> list[Any]:
    return [leaf for part in value.values() for leaf in leaves(part)] if isinstance(value, dict) else [value]


@pytest.mark.parametrize(
    ("target", "verdict", "why"),
    [
        ("good", "pass", "2 gated metrics within their limits"),
        ("bad", "fail", "drift -0.0300 [-0.0400, -0.0200], loss at most 0.01"),
        ("unsure", "inconclusive", "drift -0.0125 [-0.0200, -0.0050], loss at most 0.01"),
        ("absent", "unavailable", workspace.WHY_ABSENT),
    ],
)
def test_page_and_markdown_name_the_verdict_and_why(reports: Path, target: str, verdict: str, why: str):
    page, markdown = ((reports / target / f).read_text() for f in ("index.html", "report.md"))
    assert set(re.findall(r'<h2>[^<]*<span class="verdict (\w+)">', page)) == {verdict}
    assert why in page
    assert f"### `fsmn_vad-{target}`: {verdict}\n" in markdown
    assert why.replace("[", "\\[").replace("]", "\\]") in markdown


def test_page_needs_nothing_beside_it(reports: Path):
    page = (reports / "bad/index.html").read_text()
    assert page.count("<svg") == 1 + len(workspace.CASES)  # drift, then a distribution for each case
    assert not re.search(r"https?:|<script|<link(?! rel=.icon. href=.data:,.)|@import|url\((?!#)", page)
    assert str(reports.parent) not in page


def test_page_holds_every_metric_recordings_flags_and_records(reports: Path):
    page = (reports / "bad/index.html").read_text()
    for shown in [
        "agreement",
        workspace.ERROR.partition("_")[2],
        "ungated",
        *workspace.CASES,
        "MatMul -&gt; QInt8: 1",
        "Conv: not in op_types",
    ]:
        assert shown in page
    assert re.findall(r"recording-\d\d", page) == [f"recording-{i:02}" for i in range(report.WORST)]
    assert "slower than the plain fp32 export on chunk_1_thread, 10s_1_thread, 10s_2_threads" in page
    assert "larger than the plain fp32 export: 8 against 6 bytes" in page
    assert f"On {workspace.MACHINE}." in page  # which need not be the one that the report is made on


def test_page_and_markdown_name_what_of_the_checkpoint_is_not_used(reports: Path):
    page, markdown = ((reports / "bad" / f).read_text() for f in ("index.html", "report.md"))
    assert re.search(r"<dt>unused_weights</dt><dd>\s*head\.weight", page)
    assert re.search(r"<dt>unknown_config</dt><dd>\s*optim_conf", page)
    assert "- unused weights of the checkpoint: head.weight" in markdown.replace("\\", "")
    assert "- unknown config of the checkpoint: optim_conf" in markdown.replace("\\", "")


def test_unavailable_page_shows_the_engine_s_sidecar_and_no_measurement(reports: Path):
    page = (reports / "absent/index.html").read_text()
    assert "Not measured, and not passed" in page
    assert "9.9.9" in page
    assert "<svg" not in page
    assert json.loads((reports / "absent/metrics.json").read_text()) == {"fsmn_vad": {"bytes": 6}}


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize(
    ("sidecar", "said"),
    [
        pytest.param({}, "9.9.9, from ONNX", id="any"),
        pytest.param({"compute_capabilities": ["SM86", "SM89"]}, "9.9.9, SM86, SM89, from ONNX", id="gpu"),
        pytest.param({"precisions": {"bf16": 64, "f32": 38}}, "9.9.9, 64 layers in bf16, 38 layers in f32", id="bf16"),
    ],
)
def test_markdown_says_of_an_engine_what_its_sidecar_does(sidecar: dict[str, Any], said: str):
    [entry] = entries("bad").values()
    engine = {"version": "9.9.9", "onnx_sha256": "0" * 64} | sidecar
    entry["records"]["engine"] = {"runtime": "a_runtime", "unavailable": None, "engines": {"model": engine}}
    text = report.markdown("bad", {"fsmn_vad-bad": entry}, {"cpu": "A CPU", "gpu": "none"}, CONFIDENCE, {})
    assert f"- engine `model`: a_runtime {said}" in text.replace("\\", "")


def test_metrics_are_numbers_only(reports: Path):
    metrics = json.loads((reports / "good/metrics.json").read_text())
    assert all(type(leaf) in {int, float} for leaf in leaves(metrics))
    assert metrics["fsmn_vad"][workspace.AGREEMENT] == pytest.approx(0.997)
    assert metrics["fsmn_vad"]["speedup_10s_1_thread"] == 1.0


def test_the_same_measurements_give_the_same_bytes(root: Path, reports: Path):
    report.main(["good"])
    for file in (root / "reports/good").iterdir():
        assert file.read_bytes() == (reports / "good" / file.name).read_bytes()


@pytest.mark.usefixtures("root")
def test_what_others_wrote_is_escaped():
    [entry] = entries("bad").values()
    entry |= {"model": HOSTILE, "reason": HOSTILE, "flags": [HOSTILE]}
    entry["records"]["quantize"] = {HOSTILE: {"quantized": {HOSTILE: HOSTILE}, "kept": {HOSTILE: HOSTILE}}}
    entry["records"]["export"] = {"checkpoint": {"unknown_config": [], "unused_weights": [HOSTILE]}}
    entry["by_recording"] = {HOSTILE: {workspace.AGREEMENT: 0.5}}
    entry["accuracy"][HOSTILE] = entry["accuracy"][workspace.AGREEMENT]
    entry["latency"][HOSTILE] = entry["latency"]["10s_1_thread"]
    environment = {"cpu": HOSTILE, "gpu": HOSTILE}
    page = report.page(HOSTILE, {HOSTILE: entry}, environment, CONFIDENCE, {})
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    markdown = report.markdown(HOSTILE, {HOSTILE: entry}, environment, CONFIDENCE, {})
    outside_code = re.sub(r"`[^`\n]*`", "", markdown.replace("\\`", ""))
    assert "<script" not in outside_code
    tables = [line for line in markdown.splitlines() if line.startswith("|")]
    assert all(len(re.findall(r"(?<!\\)\|", line)) in {4, 8, 9} for line in tables)


def pruned(widths: dict[str, int], sensitivity: dict[str, Any] | None, steps: int = 40) -> dict[str, Any]:
    """What `prune` records of a model with one layer."""
    side = {"parameters": 2000, "macs": 2_000_000, "model_bytes": 8000, "widths": {HOSTILE: 8}}
    return {
        "dense": side,
        "pruned": side | {"parameters": 1400, "widths": {HOSTILE: widths[HOSTILE]}},
        "removed": 0.3,
        "prunable": 1200,
        "removed_of_prunable": 0.5,
        "sensitivity": sensitivity,
        "tuning_loss": {"cut": 0.5, "refit": 0.25, "distillation": 0.125},
        "accuracy": {"metric": HOSTILE, "dense": 1.0, "cut": 0.6, "refit": 0.8, "distillation": 0.9},
        "layer_error": {"a.layer": 0.0625},
        "distillation": {"steps": steps, "kept_step": steps // 2, "calibration_loss": None, "tuning_loss": {}},
    }


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("sensitivity", [None, {HOSTILE: [{"width": 4, "removed": 0.3, "tuning_loss": 0.2}]}])
def test_the_page_says_what_was_pruned_and_what_recovery_gained(sensitivity: dict[str, Any] | None):
    [entry] = entries("bad").values()
    environment = {"cpu": "a", "gpu": "none"}
    before = report.page("bad", {"build": entry}, environment, CONFIDENCE, {})
    assert "What was pruned" not in before
    entry["records"]["prune"] = pruned({HOSTILE: 5}, sensitivity)
    page = report.page("bad", {"build": entry}, environment, CONFIDENCE, {})
    assert "<script" not in page
    text = " ".join(re.sub(r"<[^>]*>", " ", page).split())
    assert "of 40 steps of distillation, the weights after 20 were kept" in text
    assert "30.0 % of all parameters are gone, 50.0 % of the 1,200 in layers that can be cut" in text
    gained = ("`x` 1.0000 0.6000 0.8000 0.9000", "distance from the dense model 0.5000 0.2500 0.1250")
    for row in (*gained, "parameters 2,000 1,400", "`x` 8 5", "a.layer 0.0625"):
        assert row in text
    assert page.count("<svg") - before.count("<svg") == (sensitivity is not None)
    entry["records"]["prune"] = pruned({HOSTILE: 5}, sensitivity, steps=0)
    assert "distilled" not in report.page("bad", {"build": entry}, environment, CONFIDENCE, {})


@pytest.mark.parametrize(("section", "typo"), [("speedup", "10s_1_thraed")])
def test_a_limit_on_what_was_not_measured_is_no_open_gate(root: Path, section: str, typo: str):
    file = root / "params.yaml"
    settings = YAML(typ="safe").load(file)
    gate = settings["gates"]["usual"]
    gate.setdefault("speedup", {}).setdefault(workspace.MODEL, {})
    gate[section][workspace.MODEL][typo] = 0.5
    YAML().dump(settings, file)
    with pytest.raises(
        UserError,
        match=rf"gates.usual.{section}.{workspace.MODEL}.{typo}: nothing of that name was measured; did you mean",
    ):
        entries("good")


def test_measurements_without_their_artifact_are_refused(root: Path):
    (root / "artifacts/fsmn_vad/dense/int8").rename(root / "elsewhere")
    with pytest.raises(UserError, match="int8 is not there"):
        report.main(["bad"])


@pytest.mark.usefixtures("root")
def test_wrong_arguments(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(UserError, match="did you mean 'good'"):
        report.main(["goood"])
    with pytest.raises(SystemExit) as stopped:
        report.main([])
    assert stopped.value.code == 2
    assert "usage" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0.0000"), (-0.0, "0.0000"), (1e-7, "1e-07"), (-0.0123, "-0.0123"), (0.99814, "0.9981")]
)
def test_numbers_keep_what_matters(value: float, text: str):
    assert report.number(value) == text


def change(place: Path, **settings: Any) -> None:
    """Change the INT8 recipe, or with `graph` what it is applied to."""
    raw = YAML(typ="safe").load(place)
    raw["quantize"]["recipes"]["int8"] |= settings
    YAML().dump(raw, place)


@pytest.mark.parametrize(
    ("settings", "cpu", "cause"),
    [
        pytest.param({"op_types": ["MatMul", "Conv"]}, "avx512_vnni", "Conv is quantized", id="conv"),
        pytest.param({"weight_type": "QUInt8"}, "avx512_vnni", "QUInt8 has no fast kernel", id="unsigned"),
        pytest.param({}, "avx2", "this CPU has no VNNI or AMX", id="no-vnni"),
        pytest.param(
            {"graph": "simplify", "op_types": ["MatMul"]},
            "avx512_vnni",
            "were not rewritten for ONNX Runtime",
            id="unfused",
        ),
    ],
)
def test_a_slower_build_is_flagged_with_its_cause(tmp_path: Path, monkeypatch, settings, cpu, cause):
    workspace.make(tmp_path)
    monkeypatch.chdir(tmp_path)
    change(tmp_path / "params.yaml", **settings)
    Path("artifacts/environment/cpu").write_text(cpu)
    [flag] = [f for f in entries("bad")["fsmn_vad-bad"]["flags"] if f.startswith("slower")]
    assert cause in flag


def test_what_searches_found_is_on_the_target_s_page(tmp_path: Path, monkeypatch):
    workspace.make(tmp_path)
    monkeypatch.chdir(tmp_path)
    unit = {"value": 0.99, "loss": 0.01, "ci": [0.0, 0.02], "error": 0.1, "nodes": ["node_1"]}
    trial = {"graph": "optimize", "recipe": {"kind": "dynamic"}, "passed": True, "bytes": 900, "loss": 0.001}
    trials = [
        trial | {"speedups": {"chunk": {"speedup": 2.25, "ci": [2.0, 2.5]}, "10s": {"speedup": 4.0, "ci": [2.0, 8.0]}}},
        {"passed": False},
    ]
    about = {"metric": "offline_frame_agreement"}
    Path("searches").mkdir()
    Path("searches/fsmn_vad-bad.json").write_text(
        json.dumps(
            {
                "sensitivity": {"about": about, "units": {"encoder.last": unit}},
                "tune": {"about": about, "cpu": "Another CPU", "trials": trials},
            }
        )
    )
    report.main(["bad"])
    page = Path("reports/bad/index.html").read_text()
    assert all(shown in page for shown in ("encoder.last", "Another CPU", "2 recipes, of which 1 passed", "3.00x"))
