"""What every family does with a FunASR checkpoint folder: read its config and weights, write a changed one."""

from __future__ import annotations

import contextlib
import io
import logging
import pickle
import shutil
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from stages.core.errors import UserError
from stages.core.graphs import Feeds, Graph, GraphSet
from stages.core.packages import import_bare
from stages.core.parity import Artifact, Network

if TYPE_CHECKING:
    import torch

WEIGHTS = "model.pt"
CONFIG = "config.yaml"


def read_config(checkpoint: Path, family: str, required: Mapping[str, type]) -> dict[str, Any]:
    """config.yaml of a checkpoint.

    required: the sections that the family builds its network and front end from, and their types.

    Raises:
        UserError: it is missing, not a mapping, or lacks a section the family needs.
    """
    path = checkpoint / CONFIG
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as e:
        raise UserError(f"{path} cannot be read: {e}") from e
    if not isinstance(config, dict):
        raise UserError(f"{path}: found {type(config).__name__}, wanted a mapping")
    missing = [key for key, kind in required.items() if not isinstance(config.get(key), kind)]
    if missing:
        raise UserError(
            f"{path}: no {', '.join(missing)}; the family {family} needs it. Is this a {family} checkpoint? If it is, "
            "its configuration.json may hold what config.yaml lacks: add it there, and `python -m stages pin` the model"
        )
    return config


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """A state dict, unpickled without running any code in it; what a trainer wraps around it is taken off.

    Raises:
        UserError: the file is truncated, not a checkpoint, or holds anything but tensors.
    """
    import torch

    try:
        # Mapped, not read: a tensor costs memory once it is used. Files from before torch 1.6 cannot be.
        weights = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as e:
        raise UserError(f"{path} holds more than tensors and was not loaded: a checkpoint must not run code") from e
    except (OSError, RuntimeError, EOFError, ValueError) as e:
        raise UserError(f"{path} is not a whole PyTorch checkpoint: {e}") from e
    for wrapper in ("state_dict", "model_state_dict", "model"):  # as FunASR's own loader looks for them
        if isinstance(weights, dict) and isinstance(weights.get(wrapper), dict):
            weights = weights[wrapper]
    if not isinstance(weights, dict) or not all(isinstance(v, torch.Tensor) for v in weights.values()):
        raise UserError(f"{path}: found {type(weights).__name__}, wanted a mapping of names to tensors")
    return weights


def load(build: Callable[[dict[str, Any]], Any], config: dict[str, Any], checkpoint: Path) -> Any:
    """What a family's `build` gives, with the checkpoint's weights; every one of them must have its place.

    Raises:
        UserError: the weights are not a whole state dict, or do not fit the model that config.yaml describes.
    """
    model = weightless(build, config)
    fill(model, read_weights(checkpoint / WEIGHTS), checkpoint)
    return model


def fill(model: torch.nn.Module, weights: Mapping[str, torch.Tensor], checkpoint: Path) -> None:
    """Make weights of a checkpoint the model's own, not copied where they have its dtypes.

    Raises:
        UserError: they are not all of the model's, or others.
    """
    dtypes = {name: t.dtype for name, t in model.state_dict().items()}
    try:
        model.load_state_dict({name: t.to(dtypes.get(name)) for name, t in weights.items()}, assign=True)
    except RuntimeError as e:
        raise UserError(f"{checkpoint}: the weights do not fit config.yaml: {e}") from e


def weightless(build: Callable[[dict[str, Any]], Any], config: dict[str, Any]) -> Any:
    """What a family's `build` gives, on the meta device: to count its parameters, or to be given others.

    Random weights would be drawn first, and then thrown away.
    """
    import torch

    with torch.device("meta"):
        return build(config)


@contextlib.contextmanager
def importing_funasr() -> Iterator[None]:
    """For importing single modules of FunASR: without its `__init__`, and without what it prints and warns of."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("jieba").setLevel(logging.WARNING)
        import_bare("funasr")
        yield


def torch_artifact(family: Any, model: torch.nn.Module) -> Artifact:
    """A family's graphs of a model, run by torch."""
    graph_set = family.graph_set(model)
    return graph_set, torch_networks(graph_set, family.export_modules(model))


def torch_networks(graph_set: GraphSet, modules: Mapping[str, torch.nn.Module]) -> dict[str, Network]:
    """The torch modules behind the same interface as the exported graphs."""
    return {name: _network(modules[name].eval(), graph) for name, graph in graph_set.graphs.items()}


def _network(module: torch.nn.Module, graph: Graph) -> Network:
    import torch

    def run(feeds: Feeds) -> Feeds:
        with torch.inference_mode():
            outputs = module(*(torch.from_numpy(feeds[name]) for name in graph.inputs))
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        return {name: output.numpy() for name, output in zip(graph.outputs, outputs, strict=True)}

    return run


def save(model: torch.nn.Module, config: dict[str, Any], origin: Path, folder: Path) -> None:
    """Write the model as a checkpoint that FunASR loads; files other than weights and config are `origin`'s."""
    import torch

    shutil.copytree(origin, folder, dirs_exist_ok=True)
    torch.save(model.state_dict(), folder / WEIGHTS)
    (folder / CONFIG).write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True), encoding="utf-8")
