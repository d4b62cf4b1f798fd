"""A release as a model repository of Triton: for each model config.pbtxt and a folder of its version."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages import models
from stages.core import graphs
from stages.core.errors import UserError
from stages.core.files import new_folder, read_json, write_text
from stages.core.graphs import Graph
from stages.release import contents, statement
from stages.serving import configuration
from stages.serving.pipelines import PIPELINES, pipelines

CONFIG, VERSION, BACKEND = "config.pbtxt", "1", "model.py"
MODEL = '''"""Loaded by Triton's Python backend: Kiln has to be installed in its Python. It does not read PYTHONPATH."""

from stages.serving.backend import TritonPythonModel

__all__ = ["TritonPythonModel"]
'''


@dataclass(frozen=True)
class Release:
    """A release folder, and what its provenance says that it is."""

    folder: Path
    model: str
    target: str
    family: str
    runtime: str

    @property
    def parameters(self) -> dict[str, str]:
        """Return what each model of Triton is told: for its metrics, and to find the family."""
        return {"model": self.model, "target": self.target, "family": self.family}


def read_release(folder: Path) -> Release:
    """Read what a release folder is.

    Raises:
        UserError: it has no statement of Kiln's.
    """
    place = folder / statement.FILE
    try:
        external = read_json(place)["predicate"]["buildDefinition"]["externalParameters"]
        model, target = external["build"].split("-", 1)
        return Release(folder, model, target, external["model"]["family"], external["target"]["runtime"])
    except (KeyError, TypeError, AttributeError, ValueError) as e:
        raise UserError(f"{place} is not a statement of Kiln's: {type(e).__name__}: {e}") from e


def write(releases: Sequence[Release], place: Path, *, native: bool) -> list[str]:
    """Write a model repository of one release or several; return the names of the models in it.

    native: graphs are run by Triton's own backends of ONNX Runtime or TensorRT; else by the Python backend.

    Raises:
        UserError: two releases are of the same model, or one cannot be served so.
    """
    twice = {one.model for one in releases if [other.model for other in releases].count(one.model) > 1}
    if twice:
        raise UserError(f"found two builds of {', '.join(sorted(twice))}, wanted one of each model: Triton names it so")
    with new_folder(place) as folder:
        for release in releases:
            _check_runtime(release, native=native)
            _write_networks(release, folder, native=native)
            if release.runtime == "onnxruntime":  # which the pipelines run in themselves
                _write_pipelines(release, folder)
            if release.family in models.SPLITTABLE:
                _write_ensemble(release, folder)
        return sorted(path.name for path in folder.iterdir())


def _check_runtime(release: Release, *, native: bool) -> None:
    if release.runtime not in configuration.PLATFORMS:
        known = ", ".join(configuration.PLATFORMS)
        raise UserError(f"{release.folder}: found runtime {release.runtime}, wanted one that Triton has: {known}")
    if not native and release.runtime != "onnxruntime":
        raise UserError(f"{release.folder}: {release.runtime} needs Triton's own backend; `kiln serve --write FOLDER`")


def _write_networks(release: Release, repository: Path, *, native: bool) -> None:
    for name, graph in graphs.read(release.folder).graphs.items():
        parameters = release.parameters | {"kind": "network", "graph": name}
        config = configuration.network(f"{release.model}_{name}", graph, release.runtime, parameters, native=native)
        version = _add(repository, config)
        for path in _network_files(release.folder, graph):
            shutil.copyfile(path, version / path.name)
        if graph.states:
            _write_config(version.parent, config, configuration.NO_WARM_UP)
        else:
            configuration.warm_up(config, graph, _write_warm_up(version.parent, graph))
            _write_config(version.parent, config)


def _network_files(folder: Path, graph: Graph) -> Iterator[Path]:
    place = folder / graph.file
    yield from graphs.parts(place)
    yield folder / graphs.FILE


def _write_warm_up(folder: Path, graph: Graph) -> Mapping[str, str]:
    sizes = graph.usual_sizes | {"batch": 1}
    (folder / "warmup").mkdir()
    for name, array in graphs.example_feeds(graph, sizes, seed=0).items():
        (folder / "warmup" / name).write_bytes(array.tobytes())
    return {name: name for name in graph.inputs}


def _write_pipelines(release: Release, repository: Path) -> None:
    for name in pipelines(release.family):
        described = PIPELINES[name]
        parameters = release.parameters | {"kind": "pipeline", "pipeline": name}
        version = _add(repository, configuration.pipeline(release.model + described.suffix, described, parameters))
        _copy_release(release.folder, version, networks=True)


def _write_ensemble(release: Release, repository: Path) -> None:
    graph = graphs.read(release.folder).graphs["model"]
    for config in configuration.ensemble(release.model, graph, release.parameters):
        version = _add(repository, config)
        if config.platform != "ensemble":
            _copy_release(release.folder, version, networks=False)


def _copy_release(folder: Path, version: Path, *, networks: bool) -> None:
    """Copy what a pipeline reads: the checkpoint's files, and the graphs where it runs them itself."""
    wanted = {part.name for graph in graphs.read(folder).graphs.values() for part in graphs.parts(folder / graph.file)}
    for path in sorted(folder.iterdir()):
        if path.suffix not in contents.NETWORK or (networks and path.name in wanted):
            shutil.copyfile(path, version / path.name)


def _add(repository: Path, config: Any) -> Path:
    """Write a model's configuration, and the backend's file where it has one; return the folder of its version."""
    version = repository / str(config.name) / VERSION
    version.mkdir(parents=True)
    _write_config(version.parent, config)
    if config.backend == "python":
        write_text(version / BACKEND, MODEL)
    return version


def _write_config(folder: Path, config: Any, comment: str = "") -> None:
    from google.protobuf import text_format

    write_text(folder / CONFIG, comment + text_format.MessageToString(config))
