"""A repository after its measuring stages: params.yaml, artifacts/ and reports/measurements/, all made up.

Four builds of one model: `good` passes, `bad` fails, `unsure` is inconclusive and `absent` has an
engine that nothing here can run.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from stages.core.files import write_json
from stages.core.params.prune import PruneParams

ROOT = Path(__file__).parents[1]

MODEL = "fsmn_vad"
AGREEMENT, ERROR = "offline_frame_agreement", "streaming_truth_miss_rate"
MACHINE = "A CPU, 2 cores; GPU: none"
WHY_ABSENT = "engine built, nothing here to run it: no CUDA device"
GRAPHS = {"good": "export", "bad": "int8", "unsure": "simplify", "absent": "fp16"}
INTERVALS = {"good": (-0.004, -0.002), "bad": (-0.04, -0.02), "unsure": (-0.02, -0.005)}
CASES = {"chunk_1_thread": 0.5, "10s_1_thread": 20.0, "10s_2_threads": 10.0}
SPEEDUPS = {"good": 1.0, "bad": 0.8, "unsure": 1.5}
PRUNE = PruneParams(
    ratio=0.3,
    round_to=1,
    heads=False,
    allocation="uniform",
    criterion="least_squares",
    refit_damping=1e-4,
    variations=1,
    distill_steps=2,
    validate_every=1,
    patience=3,
    learning_rate=1e-4,
    seed=7,
)  # of tiny networks, each width possible
RECORDINGS = {f"recording-{i:02}": {AGREEMENT: 0.95 + 0.001 * i} for i in range(15)}


def repository(place: Path) -> Path:
    """Copy what DVC reads of this tree into a repository of its own, in which nothing was built."""
    for name in ("dvc.yaml", "params.yaml", "plan.yaml", ".dvcignore"):
        shutil.copy(ROOT / name, place)
    copy_dvc(place)
    shutil.copytree(ROOT / "stages", place / "stages", ignore=shutil.ignore_patterns("__pycache__", "dvc.lock"))
    subprocess.run(["git", "init", "--quiet"], cwd=place, check=True)
    return place


def copy_dvc(place: Path) -> None:
    """Copy DVC's settings of this tree, as `dvc init` would make them, without what is of this machine."""
    (place / ".dvc").mkdir()
    for name in ("config", ".gitignore"):
        shutil.copy(ROOT / ".dvc" / name, place / ".dvc")


def make(root: Path, **required: bool) -> None:
    """Write all of it below `root`; a target is required unless it is `absent` or named as not."""
    settings = YAML(typ="safe").load(ROOT / "params.yaml")
    model = settings["models"][MODEL] | {"targets": list(GRAPHS), "tuned": {}}
    settings |= {
        "models": {MODEL: model},
        "baselines": {MODEL: {ERROR: 0.3}},
        "gates": {"usual": {"accuracy": {MODEL: {AGREEMENT: 0.01, ERROR: 0.01}}}},
        "targets": {name: _target(name, required=required.get(name, name != "absent")) for name in GRAPHS},
    }
    settings["pipelines"] = {}  # tests/test_pipeline.py has its own
    YAML().dump(settings, root / "params.yaml")
    _artifacts(root / "artifacts")
    for name in GRAPHS:
        folder = root / "reports" / "measurements" / name / MODEL
        write_json(folder / "accuracy.json", {"unavailable": WHY_ABSENT} if name == "absent" else accuracy(name))
        write_json(folder / "latency.json", {"unavailable": WHY_ABSENT} if name == "absent" else latency(name))


def _target(name: str, *, required: bool) -> dict[str, Any]:
    runtime = "tensorrt_rtx" if name == "absent" else "onnxruntime"
    return {"runtime": runtime, "variant": "dense", "graph": GRAPHS[name], "gate": "usual", "required": required}


def _artifacts(place: Path) -> None:
    facts = {"cpu": "A CPU, 2 cores, avx512_vnni", "gpu": "none", "python": "3.11.7", "onnxruntime": "1.0"}
    (place / "environment").mkdir(parents=True)
    for name, fact in facts.items():
        (place / "environment" / name).write_text(f"{fact}\n")
    dense = place / MODEL / "dense"
    for name in ("checkpoint", "export", "simplify", "optimize", "int8", "fp16", "absent"):
        (dense / name).mkdir(parents=True)
        (dense / name / {"checkpoint": "model.pt", "absent": "model.engine"}.get(name, "model.onnx")).write_text(name)
    quantized = {"quantized": {"node_1": "MatMul -> QInt8"}, "kept": {"node_2": "Conv: not in op_types"}}
    write_json(dense / "int8" / "quantize.json", {"model": quantized})
    write_json(dense / "simplify" / "simplify.json", {"model": {"simplified": False, "kept_because": "it crashed"}})
    left_out = {"unknown_config": ["optim_conf"], "unused_weights": ["head.weight"]}
    write_json(dense / "export" / "export.json", {"opset": 18, "difference_from_torch": {}, "checkpoint": left_out})
    rewritten = {"memory_block": {"count": 4, "difference": 1e-6, "left_out": None}}
    write_json(dense / "optimize" / "optimize.json", {"model": rewritten})
    sidecar = {"version": "9.9.9", "compute_capabilities": ["SM86"], "onnx_sha256": "0" * 64}
    write_json(dense / "absent" / "engine.json", {"runtime": "tensorrt_rtx", "engines": {"model": sidecar}})


def accuracy(name: str) -> dict[str, Any]:
    """accuracy.json of a build."""
    low, high = INTERVALS[name]
    drift = (low + high) / 2
    known = {"clusters": 40, "worst": {"condition": {"name": "babble <b>", "loss": 0.004}}}
    agreement = {
        "baseline": 1.0,
        "value": 1 + drift,
        "drift": drift,
        "ci": [low, high],
        "resolves": drift - low,
    } | known
    error = {"baseline": 0.1, "value": 0.101, "drift": 0.001, "ci": [0.0, 0.002], "resolves": 0.001} | known
    return {
        "unavailable": None,
        "headline": AGREEMENT,
        "recordings": len(RECORDINGS),
        "available": len(RECORDINGS),
        "not_finite": 0,
        "metrics": {
            AGREEMENT: {**agreement, "higher_is_better": True},
            ERROR: {**error, "higher_is_better": False},
            "streaming_ungated": {**error, "higher_is_better": False},
        },
        "by_recording": RECORDINGS,
    }


def latency(name: str) -> dict[str, Any]:
    """latency.json of a build."""
    speedup = SPEEDUPS[name]
    return {
        "unavailable": None,
        "machine": MACHINE,
        "cases": {case: _case(baseline, speedup) for case, baseline in CASES.items()},
        "load_ms": {"baseline": 5.0, "value": 6.0},
        "peak_memory_mib": {"baseline": 70.0, "value": 60.0},
        "bytes": {"baseline": 6, "value": 8 if name == "bad" else 6},
        "runtimes": {"oldest": "1.15.0", "refused": {}},
    }


def _case(baseline: float, speedup: float) -> dict[str, Any]:
    sketch = [baseline * (0.8 + 0.01 * i) for i in range(51)]
    return {
        "p50_ms": baseline / speedup,
        "p90_ms": 1.2 * baseline / speedup,
        "baseline_p50_ms": baseline,
        "baseline_p90_ms": 1.2 * baseline,
        "speedup": speedup,
        "ci": [speedup - 0.05, speedup + 0.05],
        "blocks": 5,
        "pairs": 60,
        "busy": 0.34 if speedup > 1 else 0.01,
        "quantiles_ms": {"baseline": sketch, "candidate": [ms / speedup for ms in sketch]},
    }
