"""What is measured of a target of ONNX Runtime 1.16.1 runs in that version, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from stages import runtimes
from stages.core import graphs
from stages.core.errors import UserError
from stages.core.params.section import Runtime
from stages.quantize import quantize
from stages.runtimes import onnxruntime, onnxruntime_1_16_1
from tests.test_quantize import INT8
from tests.workspace import ROOT

RUNTIME: Runtime = "onnxruntime_1_16_1"
needs_wheel = pytest.mark.skipif(sys.version_info >= (3, 12), reason="1.16.1 has wheels for Python 3.11 and older")
RUN = """
import sys, numpy, onnxruntime
from pathlib import Path
from stages import runtimes
from stages.core import graphs
folder, place = map(Path, sys.argv[1:])
graph_set = graphs.read(folder)
feeds = graphs.example_feeds(graph_set.graphs["model"], {"feats_length": 40}, seed=0)
found = runtimes.load(folder, graph_set, "onnxruntime_1_16_1", 1)["model"](feeds)
numpy.savez(place, version=onnxruntime.__version__, **found)
"""


@pytest.fixture
def execve(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Sequence[str], Mapping[str, str]]]:
    """What this process would have been replaced by."""
    calls: list[tuple[str, Sequence[str], Mapping[str, str]]] = []
    monkeypatch.setattr(os, "execve", lambda *call: calls.append(call))
    return calls


@pytest.fixture
def int8(tiny_export: Path, tmp_path: Path) -> Path:
    graph_set = graphs.read(tiny_export)
    quantize(tiny_export / "model.onnx", tmp_path / "model.onnx", INT8)
    graphs.write(tmp_path, graph_set)
    return tmp_path


@needs_wheel
def test_the_graphs_of_a_stage_run_in_it_and_compute_the_same(int8: Path, execve, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    runtimes.enter(RUNTIME, "evaluate", ["fsmn_vad-server_int8"])
    [(python, argv, environment)] = execve
    assert argv == [python, "-m", "stages.evaluate", "fsmn_vad-server_int8"]

    subprocess.run([python, "-c", RUN, int8, int8 / "outputs.npz"], env=environment, check=True)
    found, graph = np.load(int8 / "outputs.npz"), graphs.read(int8).graphs["model"]
    assert str(found["version"]) == onnxruntime_1_16_1.VERSION
    feeds = graphs.example_feeds(graph, {"feats_length": 40}, seed=0)
    for name, expected in onnxruntime.network(int8 / graph.file, graph)(feeds).items():
        np.testing.assert_allclose(found[name], expected, atol=1e-2)


@needs_wheel
def test_another_version_in_the_process_is_refused(int8: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(UserError, match=r"found another ONNX Runtime in this process, wanted 1\.16\.1"):
        runtimes.load(int8, graphs.read(int8), RUNTIME, 1)


def test_where_it_is_not_installed_it_is_unavailable_and_nothing_is_started(
    tmp_path: Path, execve, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert "newer ones have no wheel" in (runtimes.why_unavailable(RUNTIME) or "")
    runtimes.enter(RUNTIME, "evaluate", [])
    assert not execve


def test_the_runtime_of_this_process_needs_no_other(execve):
    runtimes.enter("onnxruntime", "evaluate", [])
    assert not execve
