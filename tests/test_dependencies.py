"""DVC is told of every module that a stage imports, so that a change of it runs the stage again."""

from __future__ import annotations

import ast
import functools
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

from stages import environment
from stages.core import layout
from tests.test_structure import DVC
from tests.workspace import ROOT

# Modules of stages/core whose change alters no result: what they say, where they put it, and what DVC tracks by value.
UNTRACKED = {
    "stages/core/errors.py": "wording",
    "stages/core/lifetime.py": "ends processes, and makes nothing",
    "stages/core/failures.py": "wording",
    "stages/core/progress.py": "wording",
    "stages/core/layout.py": "paths, which dvc.yaml names too",
    "stages/core/files.py": "writes what it is given",
    "stages/core/packages.py": "finds installed files, whose versions are artifacts/environment",
    "stages/core/parallel.py": "shares out work",
    "stages/core/children.py": "limits what runs, and makes nothing",
    "stages/core/params": "reads params.yaml, of which DVC tracks the values",
    "stages/core/plan.py": "derives plan.yaml, of which DVC tracks the values",
    "stages/core/pins.py": "reads pins/, which decide the bytes",
    "stages/core/tracked.py": "refuses, and makes nothing",
    "stages/core/machine.py": "what it finds is artifacts/environment",
    "stages/environment.py": "always runs; what it finds is artifacts/environment",
}
# What a stage imports and still need not run again for.
HARMLESS = (
    {
        "corpus": {"stages/sources": "the digests in params.yaml and pins/ say the bytes"},
        "fetch": {"stages/sources": "the pin says the bytes", "stages/models": "checks them, and changes nothing"},
        "package": {"stages/models": "the name of one file"},
    }
    | {
        stage: {"stages/models": "which roles there are; no family is imported"}
        for stage in ("report", "summary", "gate")
    }
    | {
        stage: dict.fromkeys(
            ("stages/pruning", "stages/corpora/noises.py"),
            "imported by what families have for the stage prune, and called by that alone",
        )
        for stage in ("reference", "export", "trace", "quantize", "evaluate", "pipeline")
    }
)
# Libraries that a stage imports through what it shares with others, and that change nothing in what it makes.
UNUSED = {
    stage: {"onnx"}  # reads graphs, which it hands to a runtime or copies
    for stage in ("benchmark", "gate", "package", "prune")
} | {
    "simplify": {"ai-edge-litert", "openvino", "torch"},  # runtimes that it does not run
    "engine": {"onnx", "torch"},
    "evaluate": {"onnx", "torch-pruning"},
    "pipeline": {"onnx", "torch-pruning"},
    "reference": {"onnx", "torch-pruning"},
    "export": {"torch-pruning"},
    "trace": {"onnx", "torch-pruning"},
    "quantize": {"torch-pruning"},
}


@functools.cache
def parsed(file: Path) -> list[ast.AST]:
    """Every node of a file's syntax tree."""
    return list(ast.walk(ast.parse(file.read_text())))


def module_file(name: str) -> Path | None:
    """The file of a module by its dotted name."""
    place = ROOT / Path(*name.split("."))
    return next((path for path in (place / "__init__.py", place.with_suffix(".py")) if path.is_file()), None)


def imported(file: Path) -> Iterator[Path]:
    """The files under stages/ that a file imports, in functions too; of a name made at run time, all it may mean."""
    for node in parsed(file):
        match node:
            case ast.ImportFrom(module=str(module), names=names):
                found = [module_file(f"{module}.{alias.name}") or module_file(module) for alias in names]
            case ast.Import(names=names):
                found = [module_file(alias.name) for alias in names]
            case ast.Call(func=func, args=[ast.JoinedStr(values=[first, *_])]) if names_import(func):
                start = first.value if isinstance(first, ast.Constant) else package(file)
                found = list((ROOT / Path(*str(start).split("."))).rglob("*.py"))
            case _:
                continue
        yield from (path for path in found if path and path.is_relative_to(ROOT / "stages"))


def names_import(func: ast.expr) -> bool:
    """Whether this is `importlib.import_module`, however it was imported."""
    return ast.unparse(func).rpartition(".")[2] == "import_module"


def package(file: Path) -> str:
    """The dotted name of the package that a file is in, which is what `__name__` is in its __init__.py."""
    return ".".join(file.parent.relative_to(ROOT).parts)


def libraries(file: Path) -> set[str]:
    """Which of the libraries that the stage `environment` tells the versions of a file imports."""
    nodes = parsed(file)
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    return {name for name in environment.LIBRARIES for root in names if root.split(".")[0] == name.replace("-", "_")}


def closure(file: Path, *, without: Collection[str] = ()) -> set[str]:
    """All that a file imports, and what that imports in turn, relative to the repository; nothing through `without`."""
    found, waiting = set[Path](), [file]
    while waiting:
        path = waiting.pop()
        if path not in found and not is_in(path.relative_to(ROOT).as_posix(), without):
            found.add(path)
            waiting += imported(path)
    return {path.relative_to(ROOT).as_posix() for path in found if has_code(path)}


def has_code(file: Path) -> bool:
    """Whether a file has more than a docstring."""
    [module, *_] = parsed(file)
    return isinstance(module, ast.Module) and len(module.body) > 1


def is_in(module: str, places: Collection[str]) -> bool:
    """Whether a module is one of these places or in a folder that is."""
    return not {module, *map(str, Path(module).parents)}.isdisjoint(places)


@pytest.mark.parametrize("stage", sorted(set(DVC) - {"environment"}))
def test_dvc_is_told_what_a_stage_imports(stage: str):
    deps = DVC[stage].get("do", DVC[stage])["deps"]
    modules = closure(ROOT / "stages" / f"{stage}.py", without={*UNTRACKED, *HARMLESS.get(stage, ())})
    assert [module for module in sorted(modules) if not is_in(module, deps)] == []


@pytest.mark.parametrize("stage", ["report", "summary"])
def test_pages_are_made_again_when_a_device_was_measured(stage: str):
    assert str(layout.GPU) in DVC[stage].get("do", DVC[stage])["deps"]


@pytest.mark.parametrize("stage", sorted(set(DVC) - {"environment"}))
def test_dvc_is_told_of_the_libraries_that_a_stage_imports(stage: str):
    deps = DVC[stage].get("do", DVC[stage])["deps"]
    modules = closure(ROOT / "stages" / f"{stage}.py", without={*UNTRACKED, *HARMLESS.get(stage, ())})
    used = set().union(*(libraries(ROOT / module) for module in modules)) - UNUSED.get(stage, set())
    assert [name for name in sorted(used) if not is_in(f"artifacts/environment/{name}", deps)] == []


@pytest.mark.parametrize("stage", sorted(HARMLESS))
def test_what_is_left_out_is_imported(stage: str):
    modules = closure(ROOT / "stages" / f"{stage}.py")
    for folder in HARMLESS[stage]:
        assert [module for module in modules if is_in(module, {folder})], folder


def test_what_is_untracked_exists():
    for path in UNTRACKED:
        assert (ROOT / path).exists(), path


def test_an_import_in_a_function_and_one_by_a_made_up_name_count():
    assert "stages/rewrites/embedding.py" in closure(ROOT / "stages" / "quantize.py")
    assert "stages/models/shared/weights.py" in closure(ROOT / "stages" / "evaluate.py")
    assert not is_in("stages/core/graphs.py", {"stages/core/parity.py"})
    assert is_in("stages/models/a/score.py", {"stages/models"})
