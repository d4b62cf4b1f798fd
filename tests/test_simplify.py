"""Whatever happens in the simplifier, the stage ends with a good graph and says which one it is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import onnx
import psutil
import pytest

from stages import simplify
from stages.core import children, graphs
from stages.core.errors import UserError
from stages.core.graphs import Graph
from stages.core.params import SimplifyParams
from stages.runtimes import onnxruntime
from tests import workspace

SETTINGS = SimplifyParams(seconds=120, memory_gib=8)
TOLERANCE = 1e-5


@pytest.fixture
def graph(tiny_export: Path) -> Graph:
    return graphs.read(tiny_export).graphs["model"]


@pytest.fixture
def source(tiny_export: Path) -> Path:
    return tiny_export / "model.onnx"


@pytest.fixture
def redundant(source: Path, tmp_path: Path) -> Path:
    """The graph with its output passed through an Identity; the exporter leaves nothing else to simplify."""
    model = onnx.load(source)
    last = next(node for node in model.graph.node if "logits" in node.output)
    last.output[:] = ["before"]
    model.graph.node.append(onnx.helper.make_node("Identity", ["before"], ["logits"], name="copy"))
    place = tmp_path / "redundant" / source.name
    place.parent.mkdir()
    onnx.save(model, place)
    return place


def test_the_real_simplifier_gives_an_equal_graph_with_fewer_nodes(redundant: Path, graph: Graph, tmp_path: Path):
    assert simplify.simplify(redundant, graph, tmp_path / "out.onnx", SETTINGS, TOLERANCE) is None
    onnx.checker.check_model(tmp_path / "out.onnx", full_check=True)
    assert (tmp_path / "out.onnx").stat().st_size <= redundant.stat().st_size
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["out.onnx"]


def test_a_graph_with_nothing_to_simplify_stays_as_it_is(source: Path, graph: Graph, tmp_path: Path):
    assert simplify.simplify(source, graph, tmp_path / "out.onnx", SETTINGS, TOLERANCE) == "nothing to simplify"
    assert (tmp_path / "out.onnx").read_bytes() == source.read_bytes()


def child(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Run `code` where onnxsim would run, with the source and the place as argv[1:]."""
    run = children.run

    def instead(command, *limits, **kwargs):
        return run([sys.executable, "-c", code, *command[-2:]], *limits, **kwargs)

    monkeypatch.setattr(children, "run", instead)


WRONG = """
import onnx, sys
model = onnx.load(sys.argv[1])
next(n for n in model.graph.node if n.op_type == "Softmax").op_type = "LogSoftmax"
onnx.save(model, sys.argv[2])
"""
LARGER = """
import onnx, sys
model = onnx.load(sys.argv[1])
model.doc_string = "x" * 1000
model.graph.node[0].name += "_1"
onnx.save(model, sys.argv[2])
"""


@pytest.mark.parametrize(
    ("code", "why"),
    [
        pytest.param(
            "import os; os.kill(os.getpid(), 11)", f"onnxsim failed: died of signal {signal.SIGSEGV:d}", id="crash"
        ),
        pytest.param("import time; time.sleep(60)", "onnxsim ran for over 1 s and was stopped", id="hang"),
        pytest.param("b = bytearray(4 << 30)", "onnxsim failed: MemoryError", id="memory"),
        pytest.param("import sys; sys.exit('no such op')", "onnxsim failed: no such op", id="refusal"),
        pytest.param("pass", "onnxsim wrote no graph", id="no-output"),
        pytest.param(WRONG, "differs by", id="other-numbers"),
        pytest.param(LARGER, "larger: ", id="larger"),
    ],
)
def test_a_simplifier_that_goes_wrong_leaves_the_original(
    source: Path, graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, why: str
):
    child(monkeypatch, code)
    settings = SETTINGS.model_copy(update={"seconds": 1 if "sleep" in code else 120, "memory_gib": 2})
    assert why in (simplify.simplify(source, graph, tmp_path / "out.onnx", settings, TOLERANCE) or "")
    assert (tmp_path / "out.onnx").read_bytes() == source.read_bytes()


def test_weights_in_a_file_of_their_own_stay_there(redundant: Path, graph: Graph, tmp_path: Path):
    source, model = redundant, onnx.load(redundant)
    apart, place = tmp_path / "apart" / source.name, tmp_path / "simplified" / source.name
    apart.parent.mkdir()
    place.parent.mkdir()
    onnx.save(model, apart, save_as_external_data=True, location=f"{source.name}.data", size_threshold=1000)
    assert simplify.simplify(apart, graph, place, SETTINGS, TOLERANCE) is None
    assert [path.name for path in place.parent.iterdir()] == [source.name]
    assert place.stat().st_size < (apart.parent / f"{source.name}.data").stat().st_size
    feeds = graphs.example_feeds(graph, {"feats_length": 20}, seed=0)
    found = onnxruntime.network(place, graph, weights=apart.parent)(feeds)
    assert (found["logits"] == onnxruntime.network(source, graph)(feeds)["logits"]).all()


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: data[: len(data) // 2], id="truncated"),
        pytest.param(lambda _: b"", id="empty"),
        pytest.param(lambda data: data.replace(b"Softmax", b"Sofhmax"), id="unknown-operator"),
        pytest.param(lambda data: data.replace(b"logits", b"1ogits"), id="another-output"),
    ],
)
def test_a_broken_source_is_no_failure_of_onnxsim(source: Path, graph: Graph, tmp_path: Path, damage):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(damage(source.read_bytes()))
    with pytest.raises(UserError, match=r"^[^\n]*broken\.onnx[^\n]*$"):
        simplify.simplify(broken, graph, tmp_path / "out.onnx", SETTINGS, TOLERANCE)
    assert not (tmp_path / "out.onnx").exists()


def test_a_killed_stage_takes_its_simplifier_along(tmp_path: Path):
    os.mkfifo(tmp_path / "model.onnx")  # whoever reads it waits
    code = (
        "from pathlib import Path\nfrom stages.core.params import SimplifyParams\n"
        "from stages.simplify import run_child\n"
        "run_child(Path('model.onnx'), Path('out.onnx'), SimplifyParams(seconds=600, memory_gib=8))"
    )
    environment = {**os.environ, "PYTHONPATH": str(workspace.ROOT)}
    stage = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env=environment)
    child = first_child(psutil.Process(stage.pid))
    stage.kill()
    stage.wait()
    psutil.wait_procs([child], timeout=20)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def first_child(parent: psutil.Process) -> psutil.Process:
    """Wait for a process that another starts."""
    for _ in range(400):
        if children := parent.children():
            return children[0]
        time.sleep(0.05)
    pytest.fail("waited 20 s in vain")
