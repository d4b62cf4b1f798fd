"""Python, and the libraries that every build needs: there once, the locked version, and able to start."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from importlib.machinery import PathFinder
from importlib.metadata import Distribution, distributions
from pathlib import Path

from stages import decoding, runtimes
from stages.commands import PROJECT
from stages.core.errors import UserError, from_library
from stages.core.machine import gpus
from stages.core.params import Params
from stages.core.params.origins import ModelScopeDataset, ModelScopeSource
from stages.core.params.section import Runtime
from stages.doctor import matrix, probe
from stages.doctor.finding import Finding, level
from stages.doctor.subject import Subject
from stages.environment import LIBRARIES, library
from stages.runtimes import tensorrt

INSTALL = "rm .venv/libraries && make .venv/runtime"
PROVIDERS: dict[Runtime, str] = {"onnxruntime": "CPUExecutionProvider"}  # of ONNX Runtime, by our name of the runtime
ASK_ONNXRUNTIME = "import json, onnxruntime as o; print(json.dumps([o.__version__, o.get_available_providers()]))"
ASK_TENSORRT = (
    "import json, {} as t; known = getattr(t, 'ComputeCapability', None); "
    "print(json.dumps([t.__version__, [*known.__members__] if known else []]))"
)
SDK = ("modelscope_hub", "modelscope/hub/snapshot_download.py")  # what `fetch` imports, and FunASR where it downloads


def check(subject: Subject) -> Iterator[Finding]:
    """Yield what is found of Python and of each library."""
    yield _python(platform.python_version())
    yield from _locked()
    yield from _onnxruntime(subject)
    yield from _devices(subject)
    yield from _decoders(subject)
    yield from _modelscope(subject)


def _python(found: str) -> Finding:
    wanted = matrix.pythons()
    oldest, newest = (matrix.version_key(part.lstrip("<>=")) for part in wanted.split(","))
    if oldest <= matrix.version_key(found) < newest:
        return Finding("python", found)
    consequence, fix = "the locked libraries have no wheels for it", "make PYTHON=python3.12"
    return Finding("python", found, "blocks", f"{wanted} ({PROJECT.name})", consequence, fix)


def _locked() -> Iterator[Finding]:
    """Yield the libraries that are missing or not as locked; what has a check of its own is left to that."""
    lock, wrong = matrix.locked(), 0
    for name in LIBRARIES:
        if name not in lock or name.startswith(("tensorrt", "onnxruntime")) or (found := library(name)) in lock[name]:
            continue
        wrong += 1
        wanted, missing = " or ".join(sorted(lock[name])), found == "not installed"
        consequence = "stages cannot import it" if missing else "all that it makes is built and measured again"
        yield Finding(name, found, level(blocks=missing), f"{wanted} (requirements.txt)", consequence, INSTALL)
    if not wrong:
        yield Finding("libraries", "as locked in requirements.txt")


def _onnxruntime(subject: Subject) -> Iterator[Finding]:
    installed = {dist.name: dist.version for dist in distributions() if _has_onnxruntime(dist)}
    listed = ", ".join(f"{name} {version}" for name, version in sorted(installed.items()))
    if not installed:
        consequence = "nothing is exported, quantized or measured: each graph is run in it"
        yield Finding("onnxruntime", "not installed", "blocks", "onnxruntime", consequence, INSTALL)
        return
    if len(installed) > 1:
        consequence = "they share one folder: the last one installed is loaded, and removing one breaks the other"
        fix = f"python -m pip uninstall {' '.join(sorted(installed))}, then {INSTALL}"
        yield Finding("onnxruntime", listed, "warning", "one of them", consequence, fix)
    try:
        version, providers = probe.ask(ASK_ONNXRUNTIME)
    except (UserError, ValueError) as e:
        yield Finding("onnxruntime", f"{listed}: {e}", "blocks", "an import", "no graph can be run", INSTALL)
        return
    yield from _onnxruntime_version(version, listed)
    for runtime, provider in PROVIDERS.items():
        if runtime in subject.runtimes and provider not in providers:
            found = f"{version} with {', '.join(providers) or 'no provider'}"
            consequence = f"no build of the runtime {runtime} can be run"
            yield Finding("onnxruntime", found, "blocks", provider, consequence, INSTALL)


def _has_onnxruntime(dist: Distribution) -> bool:
    """Tell whether a distribution, such as onnxruntime-gpu, puts files into the folder `onnxruntime`."""
    is_of_the_name = (dist.name or "").startswith("onnxruntime")
    return is_of_the_name and any(file.parts[0] == "onnxruntime" for file in dist.files or ())


def _onnxruntime_version(version: str, listed: str) -> Iterator[Finding]:
    """Yield whether the version that is loaded is the locked one."""
    wanted = matrix.locked()["onnxruntime"]
    if version in wanted:
        yield Finding("onnxruntime", version)
        return
    consequence = "speed and accuracy are those of another version than the reports of CI"
    found = f"{version} is loaded, of {listed}"
    yield Finding("onnxruntime", found, "warning", f"{' or '.join(sorted(wanted))}", consequence, INSTALL)


def _devices(subject: Subject) -> Iterator[Finding]:
    """Yield whether each runtime can be used here, and whether TensorRT's libraries load."""
    for runtime, required in subject.runtimes.items():
        if runtime in tensorrt.MODULES and tensorrt.why_not_built(runtime) is None:
            yield from _engines(subject.p, runtime)
        try:
            with from_library(f"the library of {runtime} cannot be loaded"):
                why = runtimes.why_unavailable(runtime)
        except UserError as e:
            yield Finding(runtime, str(e), "blocks", "an import", "what measures its builds fails", INSTALL)
            continue
        if why is not None:
            wanted, consequence = "its library and a device", f"builds of the runtime {runtime} are `unavailable`"
            fix = "see there, or set `required: false`" if required else "see there; no required build needs it"
            yield Finding(runtime, why, level(blocks=required), wanted, consequence, fix)


def _decoders(subject: Subject) -> Iterator[Finding]:
    """Yield the pipelines whose decoder cannot run here."""
    for name, pipeline in subject.p.pipelines.items():
        why = decoding.why_unavailable(pipeline.decoder)
        if why is not None and pipeline.asr in subject.models:
            blocks = any(subject.p.has_to_pass(name, target) for target in pipeline.targets)
            consequence = f"builds of the pipeline {name} are `unavailable`"
            yield Finding("decoding", why, level(blocks=blocks), "its libraries", consequence, "see there")


def _engines(p: Params, runtime: str) -> Iterator[Finding]:
    """Yield whether a TensorRT imports, which loads its libraries, and what keeps engines from being built or run."""
    try:
        version, known = probe.ask(ASK_TENSORRT.format(tensorrt.MODULES[runtime]))
    except (UserError, ValueError) as e:
        yield Finding(runtime, str(e), "blocks", "bindings and libraries", "the stage `engine` fails", INSTALL)
        return
    yield Finding(runtime, version)
    if runtime == "tensorrt_rtx":
        yield from _capabilities(p.engine.compute_capabilities, [name for name in known if name.startswith("SM")])


def _capabilities(asked: Sequence[str], known: Sequence[str]) -> Iterator[Finding]:
    """Yield the GPUs that TensorRT-RTX builds no engine for, of those that are asked for and of the one that is here.

    asked: of params.yaml, such as `SM86`.
    """
    runtime, key = "tensorrt_rtx", "engine.compute_capabilities of params.yaml"
    if unknown := [name for name in asked if name not in known]:
        yield Finding(runtime, ", ".join(unknown), "blocks", ", ".join(known), "the stage `engine` fails", key)
    for gpu in gpus()[:1]:  # which Polygraphy takes
        name = f"SM{gpu.capability.replace('.', '')}"
        if name not in asked:
            wanted, fix = (
                ", ".join(asked),
                key if name in known else "leave the target out: it has no such GPU",
            )
            yield Finding(runtime, f"{gpu.name}, {name}", "blocks", wanted, "its engines do not load here", fix)


def _modelscope(subject: Subject) -> Iterator[Finding]:
    """Yield whether the hub's SDK is whole: some packages of that name have no downloads."""
    missing = [part for part in SDK if not _is_there(part)]
    if not missing:
        yield Finding("modelscope", library("modelscope"))
        return
    found = f"{library('modelscope')} without {' and '.join(part.removesuffix('.py') for part in missing)}"
    consequence, blocks = "nothing can be fetched from the hub", uses_hub_alone(subject)
    yield Finding("modelscope", found, level(blocks=blocks), "an SDK with downloads", consequence, INSTALL)


def _is_there(part: str) -> bool:
    """Tell whether a package, or a file of one, is installed, without importing it."""
    package, _, file = part.partition("/")
    spec = PathFinder.find_spec(package)
    places = (spec.submodule_search_locations or []) if spec else []
    return any((Path(place) / file).exists() for place in places)


def uses_hub_alone(subject: Subject) -> bool:
    """Tell whether a model or its data set has no other source than the hub."""
    only = [all(isinstance(source, ModelScopeSource) for source in m.sources) for m in subject.models.values()]
    return any(only) or any(
        isinstance(subject.p.datasets[model.dataset], ModelScopeDataset) for model in subject.models.values()
    )
