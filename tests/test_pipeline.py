"""A pipeline: metrics of its text, where errors came from, and that it gates and is shown like a build."""

# ruff: noqa: RUF001  the marks are Chinese

from __future__ import annotations

import importlib.util
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stages import decoding, gate, models, pipeline, summary
from stages.core import layout, params, plan
from stages.core.errors import UserError
from stages.core.files import write_json
from stages.core.params import EvaluateParams
from stages.core.params.decoders import GreedyDecoder, PrefixBeamDecoder
from stages.corpora.manifest import Recording
from stages.models import accuracy
from stages.pipelines.measurement import Heard
from stages.pipelines.transcription import Transcript, TwoPass
from stages.reporting import results
from tests import workspace

SETTINGS = EvaluateParams(split="evaluation", resamples=200, confidence=0.95, seed=0)
TEXT = (workspace.ROOT / "params.yaml").read_text()
KNOWN = "打开卧室的灯。12 34。"


def transcript(text: str, segments: tuple[tuple[int, int], ...] = ((0, 1000), (2000, 3000)), work: float = 1.0):
    return Transcript(dict.fromkeys(segments, ""), text, {"vad": work / 2, "asr": work / 2})


def heard(value: Transcript, swapped: dict[str, str], live: list[TwoPass] | None = None) -> Heard:
    """A recording of 10 s on which the baseline makes one error: 卧 is heard as 我."""
    baseline = transcript("打开我室的灯，1234。")
    said = live or [TwoPass("打开", (450.0, 10.0), (900.0, 20.0))]
    return Heard(
        recording=Recording(folder=Path(), id="one", text="x", wav="x.wav", seconds=10, sha256="0" * 64),
        known=KNOWN,
        runs=[(baseline, value)],
        busy=0.25,
        swapped=swapped,
        live=([TwoPass("打开", (450.0, 10.0), (900.0, 20.0))], said),
        is_finite=True,
    )


def several(one: Heard) -> list[Heard]:
    """The same of twelve recordings."""
    return [replace(one, recording=one.recording.model_copy(update={"id": str(n)})) for n in range(12)]


SAME = dict.fromkeys(("vad", "asr", "punctuation"), "打开我室的灯，1234。")


def test_the_baseline_itself_drifts_by_nothing():
    result = pipeline.pipeline([heard(transcript("打开我室的灯，1234。"), SAME)] * 3, SETTINGS)
    assert {name: m["drift"] for name, m in result["metrics"].items()} == dict.fromkeys(
        [*accuracy.PIPELINE, accuracy.TEXTS_CHANGED], 0
    )
    assert result["metrics"]["final_cer"]["value"] == pytest.approx(1 / 10)  # marks and spaces do not count
    assert result["metrics"]["segment_f1_100ms"]["value"] == 1
    assert all(of["edits"] == 0 for of in result["attribution"].values())
    assert len(result["texts"]) == 1


def test_edits_to_the_baseline_s_text_count_marks_and_errors_do_not():
    value = transcript("打开卧室的灯1234", segments=((0, 1000), (2200, 3000)))
    result = pipeline.pipeline([heard(value, SAME)] * 2, SETTINGS)
    assert result["metrics"]["final_cer"]["value"] == 0
    assert result["metrics"]["final_cer_to_fp32"]["value"] == pytest.approx(3 / 12)  # 卧 and two marks
    assert result["metrics"]["segment_f1_100ms"]["value"] == 0.5


def test_each_component_s_errors_are_its_own():
    swapped = SAME | {"asr": "打开卧室的灯，1239。", "punctuation": "打开我室的灯1234"}
    result = pipeline.pipeline([heard(transcript("打开卧室的灯1239"), swapped)] * 2, SETTINGS)
    edits = {name: (of["edits"], of["added_errors"]) for name, of in result["attribution"].items()}
    assert edits == {"vad": (0, 0), "asr": (4, 0), "punctuation": (4, 0), "all together": (8, 0)}
    assert result["attribution"]["asr"]["cer_to_fp32"] == pytest.approx(2 / 12)


def test_speed_is_a_ratio_of_pairs_and_work_over_audio():
    result = pipeline.pipeline([heard(transcript("", work=0.5), SAME)] * 2, SETTINGS)["cases"][pipeline.CASE]
    assert (result["blocks"], result["pairs"]) == (2, 2)
    assert (result["speedup"], result["busy"]) == pytest.approx((2, 0.25))
    assert (result["baseline_rtf"], result["rtf"]) == (0.1, 0.05)
    assert result["rtf_by_step"]["vad"] == {"baseline": 0.05, "value": 0.025}


def test_latencies_are_over_segments_with_speech():
    live = [TwoPass("", None, None), *(TwoPass("", (100.0 * n, 1.0), (200.0 * n, 2.0)) for n in range(1, 12))]
    result = pipeline.pipeline([heard(transcript(""), SAME, live)] * 2, SETTINGS)["latencies"]
    first = result["first_partial"]["value"]
    assert (first["segments"], first["without"]) == (22, 2)
    assert first["wait"] == {"p50_ms": 600, "p90_ms": 1000}
    assert result["final"]["value"]["total"] == {"p50_ms": 1202, "p90_ms": 2002}


def test_a_data_set_in_which_the_baseline_finds_no_speech_is_refused():
    nothing = [TwoPass("", None, None)]
    silent = replace(heard(transcript(""), SAME), live=(nothing, nothing))
    for segments, said in (([(0.1, 0.4)], "the manifest has `segments`"), ([], "found no `segments` in the manifest")):
        known = replace(silent, recording=silent.recording.model_copy(update={"segments": segments}))
        with pytest.raises(UserError, match=said):
            pipeline.pipeline([known] * 2, SETTINGS)


def test_a_target_that_finds_no_speech_has_no_latency():
    result = pipeline.pipeline([heard(transcript(""), SAME, [TwoPass("", None, None)])] * 2, SETTINGS)
    assert result["latencies"]["final"]["value"]["total"] == {"p50_ms": None, "p90_ms": None}


@pytest.mark.parametrize(
    ("spoken", "final"),
    [
        pytest.param("把空调调到二十六度，谢谢。", "把空调调到26°，谢谢。", id="number"),
        pytest.param("七点半提醒我起床。", "7:30提醒我起床。", id="time"),
        pytest.param("", "", id="nothing"),
    ],
)
def test_rules_of_inverse_text_normalisation(spoken: str, final: str):
    assert pipeline.normalizer()(spoken) == final


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        pytest.param(
            "vad: fsmn_vad\n", "vad: fsmm_vad\n", r"unknown model 'fsmm_vad'; did you mean 'fsmn_vad'", id="vad"
        ),
        pytest.param(
            "asr: paraformer\n",
            "asr: ct_transformer\n",
            r"asr: 'ct_transformer' is of the family ct_transformer, wanted one of paraformer",
            id="role",
        ),
        pytest.param("  speech:\n", "  fsmn_vad:\n", r"is the name of a model", id="name"),
        pytest.param(
            "decoder: {kind: greedy}",
            "decoder: {kind: prefix_beam, beam: 5}",
            r"pipelines\.speech\.decoder\.kind: found 'prefix_beam', which decodes sensevoice, for 'paraformer' .* "
            "wanted greedy",
            id="decoder-of-another-family",
        ),
        pytest.param(
            "decoder: {kind: greedy}",
            "decoder: {kind: wfts, beam: 16}",
            r"pipelines\.speech\.decoder: found .*'wfts'.* 'greedy', 'prefix_beam', 'wfst'",
            id="unknown-decoder",
        ),
        pytest.param(
            "decoder: {kind: greedy}",
            "decoder: {kind: prefix_beam, beam: 5, hotword: {a: 1}}",
            r"pipelines\.speech\.decoder\.hotword: unknown key",
            id="setting-of-another-decoder",
        ),
        pytest.param(
            "dataset: conversations\n", "dataset: conversation\n", r"did you mean 'conversations'", id="data-set"
        ),
        pytest.param(
            "    prune: {ratio: 0.2}\n    targets: [cpu_fp32, cpu_fp32_opt, cpu_int8,",
            "    targets: [cpu_fp32, cpu_fp32_opt,",
            r"asr: 'paraformer' is not built for cpu_int8; add it to models\.paraformer\.targets",
            id="a-part-that-is-not-built",
        ),
    ],
)
def test_a_line_that_cannot_work_is_refused_before_anything_is_built(old: str, new: str, said: str):
    assert old in TEXT
    with pytest.raises(UserError, match=said):
        params.parse(TEXT.replace(old, new, 1), "params.yaml")


def test_a_weight_of_no_model_is_refused():
    text = TEXT.replace("asr: paraformer\n", "asr: sensevoice\n").replace(
        "kind: greedy", "kind: wfst, beam: 9, lm_weight: 1"
    )
    with pytest.raises(
        UserError, match=r"speech\.decoder\.lm_weight: found 1 and no lm; add pipelines\.speech\.decoder\.lm"
    ):
        params.parse(text, "params.yaml")


def test_a_model_of_no_weight_is_refused():
    lm = f"lm: {{path: x.arpa, sha256: {'a' * 64}}}"
    decoder = f"kind: wfst, beam: 9, {lm}"
    with pytest.raises(
        UserError, match=r"speech\.decoder: found an lm and no lm_weight, without which it changes noth"
    ):
        params.parse(TEXT.replace("kind: greedy", decoder), "params.yaml")
    params.parse(TEXT.replace("kind: greedy", f"{decoder}, lm_weight: 0"), "params.yaml")  # as a sweep begins


@pytest.mark.parametrize("decoder", ["{kind: prefix_beam, beam: 5}", "{kind: wfst, beam: 16, hotwords: {播放: 4}}"])
def test_another_decoder_and_recognizer_are_one_line_away(decoder: str):
    line = re.search(r"(?m)^  speech:\n(    .*\n)+", TEXT)
    assert line
    other = "vad: fsmn_vad, asr: sensevoice, streaming: paraformer_streaming, punctuation: ct_transformer"
    added = f"  beam: {{{other}, decoder: {decoder}, dataset: conversations, targets: [cpu_int8]}}\n"
    p = params.parse(TEXT[: line.end()] + added + TEXT[line.end() :], "params.yaml")
    assert plan.derive(p).pipelines["beam-cpu_int8"].asr == "sensevoice"


def test_a_decoder_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert decoding.why_unavailable(GreedyDecoder(kind="greedy")) is None
    why = decoding.why_unavailable(PrefixBeamDecoder(kind="prefix_beam", beam=5))
    assert why == "the decoder prefix_beam needs fast_ctc_decode; install the extra: `make .venv/extra-decoding`"


@pytest.fixture
def entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The repository's own pipelines, measured: cpu_int8 changes the text, cpu_fp32 does not, no GPU for TensorRT."""
    monkeypatch.chdir(tmp_path)
    p = params.parse(TEXT, "params.yaml")
    measured = {
        "speech-cpu_fp32": pipeline.pipeline(several(heard(transcript("打开我室的灯，1234。"), SAME)), SETTINGS),
        "speech-cpu_int8": pipeline.pipeline(several(heard(transcript("打开<b>灯", work=2.0), SAME)), SETTINGS),
        "speech-trt_rtx_fp16": {},
    }
    for name, result in measured.items():
        line = plan.derive(p).pipelines[name]
        for role in models.ROLES:
            folder = layout.ARTIFACTS / getattr(line, role) / line.artifact
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "model.onnx").write_text(role)
        why = None if result else workspace.WHY_ABSENT
        write_json(
            layout.measurements(line.target, line.pipeline) / "pipeline.json",
            {"unavailable": why, "decoder": {"kind": "prefix_beam"}, "machine": workspace.MACHINE, **result},
        )
    return {name: results.pipeline_entry(p, name) for name in measured}


def test_it_has_a_verdict_like_a_build(entries):
    assert [entry["verdict"] for entry in entries.values()] == ["pass", "fail", "unavailable"]
    slower, busy = entries["speech-cpu_int8"]["flags"]
    assert slower == "slower than the pipeline of plain fp32 exports: pipeline_1_thread"
    assert busy.startswith("busy: for 0.25 of the time")
    assert entries["speech-trt_rtx_fp16"]["reason"] == workspace.WHY_ABSENT


def test_it_closes_the_gate_like_a_build(entries):
    lines = list(gate.failures(summary.summary({}, entries, {})))
    assert all(re.match("speech-cpu_int8: (fail|inconclusive): (final_cer|segment)", line) for line in lines)
    assert any("final_cer: " in line for line in lines)


def test_the_summary_keeps_no_texts(entries):
    kept = summary.summary({}, entries, {})["pipelines"]["speech-cpu_int8"]
    assert "texts" not in kept
    assert {"accuracy", "latency", "attribution", "latencies", "parts", "verdict"} <= set(kept)


def test_the_page_shows_all_of_it_and_needs_nothing_beside_it(entries):
    page = summary.pipeline_page(entries, {"cpu": "A CPU", "gpu": "none"}, "95%")
    for name, verdict in [("cpu_fp32", "pass"), ("cpu_int8", "fail"), ("trt_rtx_fp16", "unavailable")]:
        assert re.search(rf'>speech-{name}</th><td><span class="verdict {verdict}"', page)
    assert "打开&lt;b&gt;灯" in page
    assert page.count("<svg") == 1
    assert "first partial" in page
    assert page.count("decoder prefix_beam") == 2
    assert page.count(f"On {workspace.MACHINE}: speech-cpu_fp32, speech-cpu_int8.") == 1
    assert workspace.WHY_ABSENT in page
    assert not re.search(r"https?:|<script|@import|url\((?!#)", page)
