"""`make peers` runs other tools, which fail in their own ways: a failure is a line of the table, and says why."""

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from benchmarks.peers import __main__ as peers
from tests.workspace import ROOT


@pytest.mark.parametrize(
    ("log", "said"),
    [
        pytest.param(
            "Traceback:\n  raise RuntimeError(\nRuntimeError: no dynamic axes\nFor help, see it\n",
            "RuntimeError: no dynamic axes",
            id="last exception, not what follows it",
        ),
        pytest.param(
            "KeyError: 'a'\nduring this\nonnxruntime.capi.state.InvalidArgument: [ONNXRuntimeError] : rank 4\n",
            "InvalidArgument: [ONNXRuntimeError] : rank 4",
            id="exception of a native module",
        ),
        pytest.param("resolving\nno wheel for this platform\n\n", "no wheel for this platform", id="last line"),
        pytest.param("\x1b[31mValueError: \x1b[0mred\n", "ValueError: red", id="colours"),
        pytest.param("", "no output", id="silence"),
        pytest.param("no wheel at https://me:pass@host/x\n", "no wheel at https://***@host/x", id="credentials"),
        pytest.param(f"ValueError: {'x' * 200}\n", f"ValueError: {'x' * 85}...", id="cut"),
    ],
)
def test_reason_of_a_failure(log, said):
    assert peers.failure_reason(log) == said


def test_a_failed_peer_is_a_line_with_its_reason():
    row = peers.Row("fsmn_vad", "a tool", Path("model.onnx"), peers.Cost(), failure="no wheel")
    assert peers.format_row(row) == ["fsmn_vad", "a tool", "failed: no wheel", "-", "-", "-", "-", "-"]


def test_every_turn_is_a_block_of_the_speedup(tmp_path):
    (tmp_path / "model.onnx").write_bytes(bytes(2000))
    row = peers.Row("fsmn_vad", "a tool", tmp_path / "model.onnx", peers.Cost(3.2, 2.4, 100))
    row.accuracy = {
        "offline_frame_agreement": {"drift": -0.01, "ci": [-0.02, 0.0]},
        "offline_truth_f1": {"value": 0.9},
    }
    row.times = {"10s": [(np.array([4.0, 9.0, 4.0]), np.array([2.0, 3.0, 4.0])), (np.array([6.0]), np.array([3.0]))]}
    assert peers.format_row(row)[2:] == [
        "-0.0100 [-0.0200, +0.0000]",
        "0.9000",
        "2.00x [2.00, 2.00]",
        "2",
        "3 (2)",
        "100",
    ]


def test_a_model_that_no_peer_takes_is_refused_by_name(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        peers.main(["sensvoice"])
    assert "found sensvoice, wanted some of fsmn_vad, paraformer, sensevoice" in capsys.readouterr().err


@pytest.mark.parametrize("environment", sorted({peer.environment for peer in peers.PEERS}))
def test_environments_are_pinned_and_name_no_index(environment):
    folder = Path(peers.__file__).parent
    lines = (folder / f"{environment}.txt").read_text().splitlines()
    assert (folder / f"{environment}.py").is_file()
    assert all(re.fullmatch(r"#.*|[a-z0-9-.]+==[\w.]+", line) for line in lines)
    assert not any("://" in line for line in lines)


def test_the_environment_of_another_runtime_has_all_that_timing_imports():
    show = "import sys, benchmarks.peers.latency; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", show], cwd=ROOT, capture_output=True, text=True, check=True)
    distributions = metadata.packages_distributions()
    needed = {name for module in done.stdout.split() for name in distributions.get(module, ())}
    lines = (Path(peers.__file__).parent / "openvino.txt").read_text().splitlines()
    absent = {re.sub(r"[._]", "-", name).lower() for name in needed} - {line.partition("==")[0] for line in lines}
    assert absent <= {"kiln", "setuptools", "ruamel-yaml-clib"}  # on the path; of a .pth file; only makes it faster
