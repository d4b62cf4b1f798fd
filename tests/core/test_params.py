"""params.yaml: what is wrong with it is said in one message, before anything is built."""

from __future__ import annotations

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from stages.core import params
from stages.core.errors import UserError
from tests.workspace import ROOT

TEXT = (ROOT / "params.yaml").read_text()


def load(tmp_path: Path, text: str) -> params.Params:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    return params.load(path)


def test_the_repository_s_own_params_are_valid():
    assert "cpu_int8" in params.load(ROOT / "params.yaml").models["fsmn_vad"].targets


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        pytest.param(
            "per_channel: true",
            "per_chanel: true",
            r"per_chanel: unknown key; did you mean 'per_channel'",
            id="misspelt-recipe-key",
        ),
        pytest.param(
            "evaluation: 1500",
            "evaluation: 96",
            r"gates\.quantized\.accuracy\.paraformer\.offline_cer: a limit of at most 0\.015 needs about "
            r"305 recordings, datasets\.spoken_commands\.items has 96",
            id="too-few-recordings",
        ),
        pytest.param(
            "evaluation: 2400",
            "evaluation: 96",
            r"gates\.quantized\.accuracy\.ct_transformer\.text_f1: a limit of at most 0\.002 needs about "
            r"2,301 recordings, datasets\.punctuated_text\.items has 96",
            id="too-few-for-an-absolute-limit",
        ),
        pytest.param(
            "evaluation: 48",
            "evaluation: 20",
            r"gates\.quantized\.accuracy\.pipeline\.final_cer: a limit of at most 0\.1 needs about "
            r"44 recordings, datasets\.conversations\.items has 20 for evaluation \(pipelines\.speech\)",
            id="too-few-conversations",
        ),
        pytest.param(
            "text_f1: 0.002}",
            "text_f1: 0}",
            r"gates\.quantized\.accuracy\.ct_transformer\.text_f1: no data shows that nothing at all is lost; wanted a "
            r"limit over 0 \(models\.ct_transformer\)",
            id="a-limit-that-no-data-resolves",
        ),
        pytest.param("prune:\n", "prunne:\n", r"prunne: unknown key; did you mean 'prune'", id="misspelt-section"),
        pytest.param(
            "  opset: 18",
            "  opset: eighteen",
            r"export\.opset: found 'eighteen'; Input should be a valid integer",
            id="wrong-type",
        ),
        pytest.param(
            "  opset: 18", "  opset: 3", r"export\.opset: found 3; .*greater than or equal to 13", id="out-of-range"
        ),
        pytest.param("  seconds: 300\n", "", r"simplify\.seconds: missing", id="missing-key"),
        pytest.param(
            "runtime: onnxruntime, variant: dense, graph: int8",
            "runtime: onnxrt, variant: dense, graph: int8",
            r"targets\.cpu_int8\.runtime: found 'onnxrt'",
            id="unknown-runtime",
        ),
        pytest.param(
            "targets: [cpu_fp32,",
            "targets: [cpu_fp23,",
            r"models\.fsmn_vad\.targets: unknown target 'cpu_fp23'; did you mean 'cpu_fp32'",
            id="unknown-target",
        ),
        pytest.param(
            "dataset: vad_mixtures",
            "dataset: vad_mixture",
            r"models\.fsmn_vad: unknown dataset 'vad_mixture'; did you mean 'vad_mixtures'",
            id="unknown-dataset",
        ),
        pytest.param(
            "vad: fsmn_vad\n",
            "vad: fsmn_vat\n",
            r"pipelines\.speech\.vad: unknown model 'fsmn_vat'; did you mean 'fsmn_vad'",
            id="unknown-model",
        ),
        pytest.param(
            "    prune: {ratio: 0.2}",
            "    prune: {ratoi: 0.2}",
            r"models\.paraformer\.prune\.ratoi: unknown key; did you mean 'ratio'",
            id="misspelt-override",
        ),
        pytest.param(
            "    prune: {ratio: 0.2}",
            "    prune: {distill_steps: 5}",
            r"models\.paraformer\.prune\.validate_every: found 20, wanted at most the 5",
            id="override-that-does-not-fit",
        ),
        pytest.param(
            "zoo/paraformer}]\n",
            "zoo/paraformer}]\n    tuned: {dense: {int9: {kind: float16}}}\n",
            r"models\.paraformer\.tuned\.dense: unknown recipe 'int9'; did you mean 'int8'",
            id="tuned-of-nothing",
        ),
        pytest.param(
            "trt_fp16: {runtime: tensorrt, variant: dense, graph: fp16",
            "trt_fp16: {runtime: tensorrt, variant: dense, graph: int8",
            r"dynamic INT8, which tensorrt cannot run",
            id="dynamic-int8-into-tensorrt",
        ),
        pytest.param(
            "trt_fp16: {runtime: tensorrt, variant: dense, graph: fp16",
            "trt_fp16: {runtime: tensorrt, variant: dense, graph: optimize",
            r"operators \(com.microsoft\), which tensorrt does not have; use graph: simplify",
            id="optimized-into-tensorrt",
        ),
        pytest.param(
            "kind: float16, graph: simplify",
            "kind: float16, graph: optimize",
            r"recipe 'fp16' has graph: optimize; .*which tensorrt does not have; use graph: simplify",
            id="optimized-and-halved-into-tensorrt",
        ),
        pytest.param(
            "runtime: openvino_bf16, variant: dense, graph: bf16",
            "runtime: openvino, variant: dense, graph: bf16",
            r"recipe 'bf16' is bf16, which OpenVINO runs in fp32 .*; use runtime: openvino_bf16",
            id="bf16-into-fp32",
        ),
        pytest.param(
            "runtime: openvino_bf16, variant: dense, graph: bf16",
            "runtime: openvino_bf16, variant: dense, graph: simplify",
            r"targets\.openvino_bf16: graph 'simplify' is not bf16; use a bfloat16 recipe, or runtime: openvino",
            id="fp32-into-bf16",
        ),
        pytest.param(
            "runtime: openvino_bf16, variant: dense, graph: bf16",
            "runtime: openvino_bf16, variant: dense, graph: int8_static",
            r"recipe 'int8_static' is not bf16; use a bfloat16 recipe, or runtime: openvino",
            id="int8-into-bf16",
        ),
        pytest.param(
            "    revision: v2.0.4",
            "    revision: master",
            r"'master' can move; wanted a version tag",
            id="moving-revision",
        ),
        pytest.param(
            "    family: fsmn_vad ",
            "    family: fsmn_vat ",
            r"unknown family 'fsmn_vat'; did you mean 'fsmn_vad'",
            id="unknown-family",
        ),
        pytest.param("    ratio: 0.3", "    ratio: 1.3", r"prune\.fsmn_vad\.ratio: found 1.3", id="ratio-over-one"),
        pytest.param(
            "    distill_steps: 100\n    validate_every: 20\n",
            "    distill_steps: 100\n    validate_every: 2000\n",
            r"prune\.paraformer\.validate_every: found 2000, wanted at most the 100",
            id="never-validated",
        ),
        pytest.param("export:\n", "export:\n  opset: 17\n", r"duplicate key|found duplicate", id="duplicate-key"),
        pytest.param("export:\n", "export: [\n", r"params.yaml line \d+", id="not-yaml"),
        pytest.param(
            "paraformer: {offline_output_difference: 2.0e-4",
            "paraformer: {offline_output_diference: 2.0e-4",
            r"gates\.exact\.accuracy\.paraformer: unknown metric 'offline_output_diference'; did you mean",
            id="limit-on-no-metric",
        ),
        pytest.param(
            "paraformer: {offline_cer: 0.3}",
            "paraformer: {streaming_cer: 0.3}",
            r"baselines\.paraformer: unknown metric 'streaming_cer'",
            id="floor-of-another-family",
        ),
        pytest.param(
            "pipeline: {final_cer: 0.3}", "pipeline: {cer: 0.3}", r"baselines\.pipeline: unknown metric", id="pipeline"
        ),
        pytest.param(
            "    speedup:\n      fsmn_vad:",
            "    speedup:\n      fsmn_vat:",
            r"gates\.pruned\.speedup: unknown family 'fsmn_vat'; did you mean 'fsmn_vad'",
            id="speedup-of-no-family",
        ),
        pytest.param("seconds: 300", "seconds: .inf", r"simplify\.seconds: found inf; .*finite number", id="inf"),
        pytest.param("  seed: 11", "  seed: -11", r"evaluate\.seed: found -11", id="negative-seed"),
    ],
)
def test_a_mistake_is_named_with_what_was_wanted(tmp_path: Path, old: str, new: str, said: str):
    assert TEXT.count(old) >= 1
    with pytest.raises(UserError, match=said):
        load(tmp_path, TEXT.replace(old, new, 1))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        pytest.param('"\x01"', r"params\.yaml line \d+: found the control character '\\x01'", id="control-character"),
        pytest.param(r'"\e[31m"', r"params\.yaml line \d+: found the control character '\\x1b'", id="escaped"),
        pytest.param("[" * 800 + "]" * 800, r"params\.yaml: found mappings or lists too deep", id="deep"),
        pytest.param("9" * 5000, r"params\.yaml line \d+: Exceeds the limit", id="5000-digits"),
        pytest.param("0x" + "f" * 40, r"params\.yaml line \d+: found a whole number of 160 bits", id="160-bits"),
        pytest.param("2026-02-30", r"params\.yaml line \d+: day is out of range", id="no-such-day"),
        pytest.param("&a [*a]", r"export\.opset: found \[+\.\.\.\]+;", id="list-of-itself"),
        pytest.param("*nowhere", r"params\.yaml line \d+: found undefined alias 'nowhere'", id="no-anchor"),
        pytest.param("{? [[1], 2] : 3}", r"params\.yaml.*unhashable", id="unhashable-key"),
        pytest.param("[" + ", ".join(["x"] * 9999) + "]", r"opset: found \['x', 'x', 'x', \.\.\.\]; ", id="long"),
    ],
)
def test_what_yaml_stumbles_over_is_said_in_a_line(tmp_path: Path, value: str, said: str):
    with pytest.raises(UserError, match=said) as error:
        load(tmp_path, TEXT.replace("  opset: 18", f"  opset: {value}"))
    assert max(map(len, str(error.value).splitlines())) < 300


@pytest.mark.parametrize(
    ("data", "said"),
    [
        pytest.param(b"a: 1\nb: \xc4\n", r"params\.yaml line 2: byte 0xc4 is not UTF-8", id="latin-1"),
        pytest.param(b"#" * (2**20 + 1), r"params\.yaml: found over 1048576 bytes", id="huge"),
    ],
)
def test_bytes_that_are_no_settings_are_refused(tmp_path: Path, data: bytes, said: str):
    (tmp_path / "params.yaml").write_bytes(data)
    with pytest.raises(UserError, match=said):
        params.load(tmp_path / "params.yaml")


def test_a_file_as_windows_saves_it_and_anchors_are_fine(tmp_path: Path):
    text = TEXT.replace("{streaming_cer: 0.3}", "&limit {streaming_cer: 0.3}")
    (tmp_path / "params.yaml").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert params.load(tmp_path / "params.yaml").baselines["paraformer_streaming"] == {"streaming_cer": 0.3}


def test_every_mistake_is_said_at_once(tmp_path: Path):
    text = TEXT.replace("opset: 18", "opset: x").replace("ratio: 0.3", "ratio: y")
    with pytest.raises(UserError) as error:
        load(tmp_path, text)
    assert "export.opset" in str(error.value)
    assert "prune.fsmn_vad.ratio" in str(error.value)


def test_int8_tables_are_kept_from_tensorrt(tmp_path: Path):
    target = "trt_fp16: {runtime: tensorrt, variant: dense, graph: "
    text = TEXT.replace(f"{target}fp16", f"{target}int8_tensorrt")
    text = text.replace("    int8_tensorrt:", "    int8_tensorrt:\n      embedding_rows: 4096", 1)
    with pytest.raises(UserError, match=r"targets\.trt_fp16: recipe 'int8_tensorrt' has INT8 tables .* embedding_rows"):
        load(tmp_path, text)


@pytest.mark.parametrize(
    ("recipe", "target"),
    [
        pytest.param("int8_portable", "server_int8", id="standard-operators"),
        pytest.param("int8_conv", "cpu_int8_conv", id="static"),
    ],
)
def test_an_lstm_at_int8_is_for_graphs_with_onnx_runtime_s_own_operators(tmp_path: Path, recipe: str, target: str):
    head, body = TEXT.split(f"\n    {recipe}:", 1)
    text = head + f"\n    {recipe}:" + body.replace("op_types: [", "op_types: [LSTM, ", 1)
    with pytest.raises(UserError, match=rf"targets\.{target}: recipe '{recipe}' has LSTM .* graph: optimize"):
        load(tmp_path, text)


def test_a_missing_file_says_where_to_run(tmp_path: Path):
    with pytest.raises(UserError, match="run from the repository's root"):
        params.load(tmp_path / "params.yaml")


def test_a_pruned_target_needs_settings_of_the_family(tmp_path: Path):
    raw = YAML(typ="safe").load(TEXT)
    del raw["prune"]["fsmn_vad"]
    path = tmp_path / "params.yaml"
    YAML().dump(raw, path)
    with pytest.raises(UserError, match=r"cpu_pruned is pruned, and `prune` has no section for the family 'fsmn_vad'"):
        params.load(path)


def test_a_largest_value_needs_no_more_recordings_than_a_verdict(tmp_path: Path):
    """What is not seen is no part of it; the formula for what may be lost unseen asked for 44."""
    with pytest.raises(UserError) as refused:
        load(tmp_path, TEXT.replace("evaluation: 468", "evaluation: 30"))
    assert "utterance_embedding_cosine" in str(refused.value)
    assert "utterance_embedding_max_distance" not in str(refused.value)
