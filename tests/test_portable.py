"""Portable graphs have operators of the ONNX standard alone, and every rewrite that makes no others."""

from __future__ import annotations

import sys
from pathlib import Path

import onnx

from stages import optimize, portable
from stages.core import graphs, params, plan
from stages.core.parity import largest_differences
from stages.runtimes import onnxruntime
from tests.test_optimize import TOLERANCE
from tests.workspace import ROOT


def test_the_rewrites_left_out_are_those_that_make_operators_of_onnx_runtime_s_own():
    own = {name for name in optimize.REWRITES if hasattr(sys.modules[f"stages.rewrites.{name}"], "MICROSOFT")}
    assert own == set(portable.NOT_STANDARD)
    assert set(portable.STANDARD) == set(optimize.REWRITES) - own | {"copied_sizes"}


def test_the_numbers_are_the_same_in_standard_operators(tiny_export: Path, tmp_path: Path):
    graph = graphs.read(tiny_export).graphs["model"]
    source, place = tiny_export / graph.file, tmp_path / "model.onnx"
    record = optimize.optimize(source, graph, place, TOLERANCE, portable.STANDARD)
    assert record["memory_block"]["count"] == 4
    assert {node.domain for node in onnx.load(place).graph.node} <= {"", "ai.onnx"}
    networks = [onnxruntime.network(path, graph) for path in (source, place)]
    assert max(largest_differences(graph, *networks).values()) < TOLERANCE


def test_they_are_made_where_a_target_asks_for_them_itself_or_by_its_recipe():
    p = params.load(ROOT / "params.yaml")
    asked = {name for name, model in p.models.items() if "server_int8" in model.targets}
    assert set(plan.derive(p).portable) == {f"{name}-dense" for name in asked} != set()
    vad = p.models["fsmn_vad"].model_copy(update={"targets": ["cpu_fp32_opt", "own"]})
    own = p.targets["cpu_fp32_opt"].model_copy(update={"graph": "portable"})
    changed = p.model_copy(update={"models": {"fsmn_vad": vad}, "targets": p.targets | {"own": own}})
    assert list(plan.derive(changed).portable) == ["fsmn_vad-dense"]
