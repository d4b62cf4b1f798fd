"""What is known of a build: measurements, verdict, flags and provenance, as reports and gate read it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stages import models
from stages.core import failures, graphs, layout, plan
from stages.core.errors import UserError, did_you_mean
from stages.core.files import read_json, sha256
from stages.core.params import PIPELINE, UNQUANTIZED, Params, Target
from stages.core.params.gates import Limit, absolute_limit
from stages.core.params.recipes import DynamicRecipe, StaticRecipe
from stages.core.plan import Build
from stages.core.speedups import describe_speedup
from stages.core.statistics import describe_drift, estimate_clusters, verdict

RECORDS = ("prune.json", "export.json", "simplify.json", "optimize.json", "quantize.json", "engine.json", "trace.json")
TOO_SMALL_MS = 1.0
ONE_THREAD = "_1_thread"


def environment() -> dict[str, str]:
    """Read the machine and library versions that this build was measured with, by name."""
    return {path.name: path.read_text(encoding="utf-8").strip() for path in sorted(layout.ENVIRONMENT.iterdir())}


def build_entry(p: Params, name: str) -> dict[str, Any]:
    """Collect one entry of summary.json's `builds`."""
    build = plan.derive(p).builds[name]
    target = p.targets[build.target]
    folder = layout.measurements(build.target, build.model)
    entry = _unmeasured(p, build.model, build.target) | {"records": {}}
    if why := failures.find_cause(f"evaluate@{name}", f"benchmark@{name}"):
        return entry | {"reason": why}
    accuracy, latency = read_json(folder / "accuracy.json"), read_json(folder / "latency.json")
    entry |= {
        "verdict": "unavailable",
        "reason": accuracy["unavailable"] or latency["unavailable"],
        "artifact": artifact(layout.ARTIFACTS / build.artifact),
        "records": records(p, build),
    }
    if entry["reason"] is None:
        entry |= {key: accuracy[key] for key in ("headline", "recordings", "available", "by_recording")}
        entry |= {key: latency[key] for key in ("machine", "load_ms", "peak_memory_mib", "bytes")}
        entry["runtimes"] = latency.get("runtimes")  # of TensorRT, engine.json names the one version
        entry |= _judge(p, target, p.models[build.model].family, accuracy, latency["cases"])
        entry["flags"] = _flags(p, target, entry)
    return entry


def pipeline_entry(p: Params, name: str) -> dict[str, Any]:
    """Collect one entry of summary.json's `pipelines`: as for a build, with its parts and its latencies."""
    line = plan.derive(p).pipelines[name]
    target = p.targets[line.target]
    entry = _unmeasured(p, line.pipeline, line.target) | {"parts": {}}
    if why := failures.find_cause(f"pipeline@{name}"):
        return entry | {"reason": why}
    measured = read_json(layout.measurements(line.target, line.pipeline) / "pipeline.json")
    folders = {role: layout.ARTIFACTS / getattr(line, role) / line.artifact for role in models.ROLES}
    parts = {role: {"model": getattr(line, role), **artifact(folder)} for role, folder in folders.items()}
    entry |= {
        "verdict": "unavailable",
        "reason": measured["unavailable"],
        "artifact": {"bytes": sum(part["bytes"] for part in parts.values())},
        "parts": parts,
    }
    if entry["reason"] is None:
        entry |= {
            key: value
            for key, value in measured.items()
            if key not in {"unavailable", "metrics", "cases", "not_finite"}
        }
        entry |= _judge(p, target, PIPELINE, measured, measured["cases"])
        slower = [case for case, value in entry["latency"].items() if value["ci"][1] < 1]
        entry["flags"] = [f"slower than the pipeline of plain fp32 exports: {case}" for case in slower]
        entry["flags"] += _busy(entry, p.benchmark.busy)
    return entry


def _unmeasured(p: Params, model: str, name: str) -> dict[str, Any]:
    """Return the entry of a build or pipeline whose making failed: nothing is known of it."""
    target = p.targets[name]
    return {
        "model": model,
        "target": name,
        **target.model_dump(),
        "required": p.has_to_pass(model, name),
        # Of a target that is required: another need not pass whatever the model.
        "excuse": p.gates[target.gate].optional.get(model) if target.required else None,
        "verdict": "failed",
        "reason": None,
        "artifact": {"path": None, "sha256": None, "bytes": 0, "files": {}},
        "accuracy": {},
        "latency": {},
        "flags": [],
    }


def _judge(
    p: Params, target: Target, family: str, measured: Mapping[str, Any], cases: Mapping[str, Any]
) -> dict[str, Any]:
    """Judge accuracy and latency by the target's gate, and decide the verdict over all of it."""
    limits, speedups = (getattr(p.gates[target.gate], what).get(family, {}) for what in ("accuracy", "speedup"))
    metrics, not_finite = measured["metrics"], measured["not_finite"]
    _check_measured(f"gates.{target.gate}.accuracy.{family}", limits, metrics)
    _check_measured(f"gates.{target.gate}.speedup.{family}", speedups, cases)
    judged = {
        "accuracy": {
            name: judge_metric(m, limits.get(name), p.gates[target.gate].worst) for name, m in metrics.items()
        },
        "latency": {case: _judge_speedup(measured, speedups.get(case)) for case, measured in cases.items()},
    }
    floors = p.baselines[family]
    _check_measured(f"baselines.{family}", floors, metrics)
    worst, why = _overall_verdict(judged)
    if not_finite:
        worst, why = "fail", f"its outputs were NaN or infinite in {not_finite} recordings"
    if short := list(_explain_shortfalls(measured, floors)):
        worst, why = "baseline", f"says nothing here: {'; '.join(short)}"
    return {**judged, "verdict": worst, "reason": why, "truth": next(iter(floors))}


def _explain_shortfalls(measured: Mapping[str, Any], floors: Mapping[str, float]) -> Iterator[str]:
    """Explain where the fp32 baseline misses the quality without which a drift means nothing.

    It is that of all recordings, though a build may be judged on fewer; a pipeline is judged on all.
    """
    nothing = []
    for name, floor in floors.items():
        metric = measured["metrics"][name]
        found = measured["baseline"][name] if "baseline" in measured else metric["baseline"]
        if found is None:
            nothing.append(name)
        elif not (found >= floor if metric["higher_is_better"] else found <= floor):
            least = "least" if metric["higher_is_better"] else "most"
            yield f"the fp32 model has {name} {found:.4f}, wanted at {least} {floor:g}"
    if nothing:
        yield (
            f"its data set has nothing to measure {', '.join(nothing)} by; add that, or take these metrics out of "
            "`baselines` and `gates` in params.yaml"
        )


def one_thread(entry: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Select the latency cases that ran on one thread, by name without the thread count."""
    cases = entry["latency"].items()
    return {name.removesuffix(ONE_THREAD): value for name, value in cases if name.endswith(ONE_THREAD)}


def _check_measured(where: str, limits: Mapping[str, float], measured: Mapping[str, Any]) -> None:
    """Refuse a limit on something that was not measured: it would be a gate that no build has to pass."""
    for name in limits:
        if name not in measured:
            hint = did_you_mean(name, measured)
            raise UserError(f"params.yaml {where}.{name}: nothing of that name was measured; {hint}")


def judge_metric(measured: dict[str, Any], limit: Limit | None, worst: float | None) -> dict[str, Any]:
    """Return a measured metric with its limit, that of its worst condition, and the verdict; None where not gated."""
    if limit is None:
        return {**measured, "limit": None, "verdict": None}
    most = absolute_limit(limit, measured)
    worst_limit = None if worst is None else worst * most
    judged = verdict(measured, most)
    if judged == "pass" and list(_worst_beyond(measured["worst"], worst_limit)):
        judged = "fail"
    return {**measured, "limit": most, "worst_limit": worst_limit, "verdict": judged}


def _worst_beyond(worst: Mapping[str, Mapping[str, Any]], limit: float | None) -> Iterator[str]:
    """Yield the worst speaker and condition, in words, where they lose more than the limit."""
    for kind, group in worst.items():
        if limit is not None and group["loss"] > limit:
            yield f"{kind} {group['name']}: loss {group['loss']:.4f}, at most {limit:.4g}"


def _judge_speedup(measured: dict[str, Any], limit: float | None) -> dict[str, Any]:
    """Judge a speedup: it passes if all of its interval is at or above the gate's limit for that case."""
    if limit is None:
        return {**measured, "limit": None, "verdict": None}
    low, high = measured["ci"]
    return {
        **measured,
        "limit": limit,
        "verdict": "pass" if low >= limit else "fail" if high < limit else "inconclusive",
    }


def _overall_verdict(entry: dict[str, Any]) -> tuple[str, str]:
    """Return the worst verdict of all gated metrics and its reason; `pass` says how many there were."""
    judged = {**entry["accuracy"], **entry["latency"]}
    for worst in ("fail", "inconclusive"):
        names = [name for name, value in judged.items() if value["verdict"] == worst]
        if names:
            return worst, "; ".join(describe(name, judged[name]) for name in names)
    passed = sum(value["verdict"] == "pass" for value in judged.values())
    return ("pass", f"{passed} gated metrics within their limits") if passed else ("inconclusive", "no metric is gated")


def describe(name: str, value: dict[str, Any]) -> str:
    """Describe a judged metric in one line: value, interval, limit."""
    if "speedup" in value:
        return f"{name}: {describe_speedup(value)}, at least {value['limit']:g}x"
    parts = [f"{name}: {describe_drift(value)}, loss at most {value['limit']:.4g}"]
    if value["verdict"] == "inconclusive" and (needed := estimate_clusters(value, value["limit"])):
        here, about = f"here are {value['clusters']:,}", "at least" if value["resolves"] is None else "about"
        parts.append(f"a build without drift would need {about} {needed:,} speakers or recordings for that, {here}")
    return "; ".join([*parts, *_worst_beyond(value["worst"], value["worst_limit"])])


def artifact(folder: Path) -> dict[str, Any]:
    """Return path, bytes and digest of what the runtime loads; of several files, the digest of their digests."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not there, but its measurements are; `dvc repro` makes it")
    files = graphs.digests(folder)
    if len(files) == 1:
        path, digest = folder / next(iter(files)), next(iter(files.values()))
    else:
        path, digest = folder, hashlib.sha256("".join(f"{d}  {n}\n" for n, d in files.items()).encode()).hexdigest()
    return {"path": str(path), "sha256": digest if files else None, "bytes": graphs.size(folder), "files": files}


def records(p: Params, build: Build) -> dict[str, Any]:
    """Collect what each stage on the way to the artifact recorded of it, the checkpoint's files first."""
    target = p.targets[build.target]
    checkpoint = layout.checkpoint(build.model, target.variant)
    is_plain = target.graph in UNQUANTIZED
    unquantized = target.graph if is_plain else p.recipe(build.model, target.variant, target.graph).graph
    passed = _made_of(unquantized)
    steps = [checkpoint] + [
        layout.graphs(build.model, target.variant, step) for step in (*passed, target.graph, build.target)
    ]
    found = {f.stem: read_json(f) for step in dict.fromkeys(steps) for name in RECORDS if (f := step / name).is_file()}
    files = {
        f.name: sha256(f) for f in sorted(checkpoint.iterdir()) if f.suffix != ".json" or f.name == "configuration.json"
    }
    return {"checkpoint": files, **found}


def _made_of(graph: str) -> list[str]:
    """List the unquantized graphs that one was made of, the first first, and itself."""
    before = UNQUANTIZED[graph]
    return [*(_made_of(before) if before else ()), graph]


def _flags(p: Params, target: Target, entry: dict[str, Any]) -> list[str]:
    """Flag an optimized build that is slower or larger than the plain export, with the cause."""
    flags = []
    slower = [case for case, value in entry["latency"].items() if value["ci"][1] < 1]
    if slower and target.graph != "export":
        flags.append(
            f"slower than the plain fp32 export on {', '.join(slower)}: {next(_causes(p, target, entry, slower))}"
        )
    flags += _busy(entry, p.benchmark.busy)
    if entry["bytes"]["value"] > entry["bytes"]["baseline"]:
        flags.append(
            f"larger than the plain fp32 export: {entry['bytes']['value']} against {entry['bytes']['baseline']} bytes"
        )
    return flags


def _busy(entry: dict[str, Any], limit: float) -> Iterator[str]:
    """Yield in words how much others worked on the machine while the speedups were measured, if more than the limit."""
    busiest = max((value["busy"] for value in entry["latency"].values()), default=0.0)
    if busiest > limit:
        yield (
            f"busy: for {busiest:.2f} of the time something waited for a core while speedups were measured; their "
            "intervals are as wide as that made them"
        )


def _causes(p: Params, target: Target, entry: dict[str, Any], cases: list[str]) -> Iterator[str]:
    """Yield the causes for which it may be slower, the surest first."""
    recipe = None if target.graph in UNQUANTIZED else p.recipe(entry["model"], target.variant, target.graph)
    if isinstance(recipe, DynamicRecipe | StaticRecipe):
        if "Conv" in recipe.op_types:
            yield "Conv is quantized, which runs slower than fp32 in ONNX Runtime"
        if recipe.weight_type == "QUInt8":
            yield "weight_type QUInt8 has no fast kernel here; QInt8 does"
        if "vnni" not in environment()["cpu"] and "amx_int8" not in environment()["cpu"]:
            yield "this CPU has no VNNI or AMX, which INT8 needs to be fast"
        if recipe.graph == "simplify":
            yield "its graphs were not rewritten for ONNX Runtime; the recipe has graph: simplify"
    for rewrites in entry["records"].get("optimize", {}).values():
        for name, rewrite in rewrites.items():
            if rewrite["count"] or str(rewrite["left_out"]).startswith("failed"):
                yield from [f"the rewrite {name} was left out: {rewrite['left_out']}"] if rewrite["left_out"] else []
    if max(entry["latency"][case]["baseline_p50_ms"] for case in cases) < TOO_SMALL_MS:
        yield "the work is too small to gain from it"
    yield "no known cause; profile it"
