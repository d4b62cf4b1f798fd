"""`kiln compare` names each thing in which two releases differ, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stages.__main__ import main
from stages.core.errors import UserError
from stages.core.files import write_json
from stages.release import statement


def write(folder: Path, *, cer: float = 0.02, digest: str = "a" * 64, smooth: float = 0.5, ort: str = "1.32") -> Path:
    measured: dict[str, Any] = {
        "verdict": "pass",
        "accuracy": {"offline_cer": {"value": cer, "ci": [0.0, 0.01]}},
        "latency": {"10s_1_thread": {"p50_ms": 2.0, "speedup": 1.5, "ci": [1.4, 1.6]}},
        "artifact": {"bytes": 7, "files": {"model.onnx": digest}},
    }
    definition = {
        "externalParameters": {"build": "my-int8", "recipe": {"smooth": smooth}},
        "resolvedDependencies": [{"name": "model.pt", "digest": {"sha256": "b" * 64}}],
    }
    details = {"builder": {"version": {"onnxruntime": ort}}}
    predicate = {"buildDefinition": definition, "runDetails": details, statement.MEASURED: measured}
    write_json(folder / statement.FILE, {"predicate": predicate})
    return folder


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"cer": 0.03}, "| accuracy `offline_cer`, drift | 0.0200, [0.0000, +0.0100] | 0.0300, [0.0000, +0.0100] |"),
        ({"digest": "c" * 64}, f"| `model.onnx` | `{'a' * 16}` | `{'c' * 16}` |"),
        ({"smooth": 0.25}, "| recipe smooth | `0.5` | `0.25` |"),
        ({"ort": "1.33"}, "| with `onnxruntime` | `1.32` | `1.33` |"),
    ],
    ids=["accuracy", "graph", "recipe", "library"],
)
def test_what_differs_is_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], line: str):
    main(["compare", str(write(tmp_path / "old")), str(write(tmp_path / "new", **change))])
    head, _, *lines = capsys.readouterr().out.splitlines()
    assert lines == [line]
    assert head == f"| | `{tmp_path / 'old'}` | `{tmp_path / 'new'}` |"


def test_two_alike(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    main(["compare", str(write(tmp_path / "old")), str(write(tmp_path / "new"))])
    assert capsys.readouterr().out.endswith("do not differ.\n")


def test_what_is_no_release_is_named(tmp_path: Path):
    write_json(tmp_path / statement.FILE, {"predicate": []})
    with pytest.raises(UserError, match=r"provenance\.json is not a statement of Kiln's"):
        main(["compare", str(tmp_path), str(tmp_path)])
