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
    assert "fsmn_vad-cpu_int8" in params.load(ROOT / "params.yaml").builds


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        pytest.param(
            "per_channel: true",
            "per_chanel: true",
            r"per_chanel: unknown key; did you mean 'per_channel'",
            id="misspelt-recipe-key",
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
            "{model: fsmn_vad, target: cpu_int8,",
            "{model: fsmn_vad, target: cpu_int9,",
            r"builds\.fsmn_vad-cpu_int8: unknown target 'cpu_int9'; did you mean 'cpu_int8'",
            id="unknown-target",
        ),
        pytest.param(
            "{model: fsmn_vad, target: cpu_int8,",
            "{model: fsmn_vat, target: cpu_int8,",
            r"unknown model 'fsmn_vat'; did you mean 'fsmn_vad'",
            id="unknown-model",
        ),
        pytest.param(
            "artifact: fsmn_vad/dense/int8}",
            "artifact: fsmn_vad/dense/simplify}",
            r"artifact: found 'fsmn_vad/dense/simplify', wanted 'fsmn_vad/dense/int8'",
            id="other-artifact",
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
            "{model: fsmn_vad, variant: dense, graph: simplify, recipe: fp16,",
            "{model: fsmn_vad, variant: dense, graph: optimize, recipe: fp16,",
            r"tensorrt does not have; set quantize.graphs.fsmn_vad-dense-fp16.graph: simplify",
            id="optimized-and-halved-into-tensorrt",
        ),
        pytest.param(
            "    revision: v2.0.4",
            "    revision: master",
            r"'master' can move; wanted a version tag",
            id="moving-revision",
        ),
        pytest.param(
            "  fsmn_vad-pruned-int8:",
            "  fsmn_vad-prune-int8:",
            r"the key must be 'fsmn_vad-pruned-int8'",
            id="key-not-its-fields",
        ),
        pytest.param(
            "    family: fsmn_vad ",
            "    family: fsmn_vat ",
            r"unknown family 'fsmn_vat'; did you mean 'fsmn_vad'",
            id="unknown-family",
        ),
        pytest.param("    ratio: 0.3", "    ratio: 1.3", r"prune\.fsmn_vad\.ratio: found 1.3", id="ratio-over-one"),
        pytest.param(
            "    validate_every: 20 ",
            "    validate_every: 2000 ",
            r"prune\.fsmn_vad\.validate_every: found 2000, wanted at most the \d+",
            id="never-validated",
        ),
        pytest.param("export:\n", "export:\n  opset: 17\n", r"duplicate key|found duplicate", id="duplicate-key"),
        pytest.param("export:\n", "export: [\n", r"params.yaml line \d+", id="not-yaml"),
    ],
)
def test_a_mistake_is_named_with_what_was_wanted(tmp_path: Path, old: str, new: str, said: str):
    assert TEXT.count(old) >= 1
    with pytest.raises(UserError, match=said):
        load(tmp_path, TEXT.replace(old, new, 1))


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


def test_a_missing_file_says_where_to_run(tmp_path: Path):
    with pytest.raises(UserError, match="run from the repository's root"):
        params.load(tmp_path / "params.yaml")


def test_a_build_needs_the_lines_that_make_it(tmp_path: Path):
    raw = YAML(typ="safe").load(TEXT)
    del raw["quantize"]["graphs"]["fsmn_vad-dense-int8"]
    path = tmp_path / "params.yaml"
    YAML().dump(raw, path)
    with pytest.raises(UserError, match=r"add the line fsmn_vad-dense-int8 to quantize\.graphs"):
        params.load(path)
