"""What every family does with a FunASR checkpoint folder: read its config and weights, write a changed one."""

from __future__ import annotations

import contextlib
import io
import logging
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from stages.core.errors import UserError, first_line
from stages.core.graphs import Feeds, Graph, GraphSet
from stages.core.packages import import_bare
from stages.core.parity import LoadedArtifact, Network
from stages.core.patches.funasr import funasr_register
from stages.models.protocols import Family
from stages.models.shared import schema, weights, yaml_config

if TYPE_CHECKING:
    import torch

CONFIG = "config.yaml"
C = TypeVar("C", bound=schema.Config)


def read_config(checkpoint: Path, family: str, schemas: Mapping[str, type[C]]) -> tuple[dict[str, Any], C]:
    """Read config.yaml of a checkpoint, as FunASR reads it, and as the family's schema types it.

    schemas: of each `model` that the family knows.

    Raises:
        UserError: it is missing, not a mapping, or not what the schema wants.
    """
    config = yaml_config.read(checkpoint / CONFIG)
    return config, schema.check(config, schemas, family, checkpoint / CONFIG)


def load(build: Callable[[dict[str, Any]], Any], config: dict[str, Any], checkpoint: Path) -> Any:
    """Return what a family's `build` gives, with the checkpoint's weights.

    Raises:
        UserError: FunASR cannot build what config.yaml describes, or the weights are not a whole state dict of it.
    """
    model, path = described(build, config, checkpoint), weights.find(checkpoint)
    weights.fill(model, weights.read(path), weights.scopes(config), path)
    return model


def described(build: Callable[[dict[str, Any]], Any], config: dict[str, Any], checkpoint: Path) -> Any:
    """Return the network that a checkpoint's config.yaml describes, as `weightless` builds it.

    Raises:
        UserError: FunASR cannot build it.
    """
    try:
        return weightless(build, config)
    except UserError:
        raise
    except Exception as e:  # FunASR's classes assert, look up and divide as they go
        raise UserError(f"{checkpoint / CONFIG}: FunASR cannot build this: {type(e).__name__}: {first_line(e)}") from e


def left_out(family: Family[Any], checkpoint: Path) -> dict[str, list[str]]:
    """Name the keys of config.yaml that the family's schema does not know, and the weights that its network lacks."""
    config, typed = read_config(checkpoint, "", family.SCHEMAS)
    network = weightless(family.build, family.read_config(checkpoint)).state_dict().keys()
    found = weights.read(weights.find(checkpoint))
    used = weights.origins(network, found.keys(), weights.scopes(config)).values()
    return {
        "unknown_config": sorted(schema.unknown(typed)),
        "unused_weights": sorted(found.keys() - set(used)),
    }


def weightless(build: Callable[[dict[str, Any]], Any], config: dict[str, Any]) -> Any:
    """Build a family's network with weights that nobody wrote: to count its parameters, or to be given others.

    Random ones would be drawn first, and then thrown away. Memory that is not written costs nothing. On the meta device
    the first random number would import torch's compiler, which takes more than a second.
    """
    with _uninitialized():
        return build(config)


def _uninitialized() -> contextlib.AbstractContextManager[Any]:
    """Leave tensors as they are where a network is built: skip torch.nn.init and random numbers written in place."""
    from torch.overrides import TorchFunctionMode

    class Uninitialized(TorchFunctionMode):
        def __torch_function__(self, function: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
            name, module = getattr(function, "__name__", ""), getattr(function, "__module__", "")
            if module == "torch.nn.init" or name in {"normal_", "uniform_"}:
                return args[0] if args else kwargs["tensor"]
            return function(*args, **(kwargs or {}))

    return Uninitialized()


@contextlib.contextmanager
def importing_funasr() -> Iterator[None]:
    """Import single modules of FunASR in this block: without its `__init__`, what it prints and warns of.

    Tensors that modules make as they are imported have numbers, whatever device a caller made the default.
    """
    import torch

    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(), torch.device("cpu"):
        warnings.simplefilter("ignore")
        logging.getLogger("jieba").setLevel(logging.WARNING)
        import_bare("funasr")
        with funasr_register():
            yield


def torch_artifact(family: Family[Any], model: torch.nn.Module) -> LoadedArtifact:
    """Return a family's graphs of a model, run by torch."""
    graph_set = family.graph_set(model)
    return graph_set, torch_networks(graph_set, family.export_modules(model))


def torch_networks(graph_set: GraphSet, modules: Mapping[str, torch.nn.Module]) -> dict[str, Network]:
    """Give torch modules the same interface as the exported graphs have."""
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
    torch.save(model.state_dict(), weights.find(folder))
    yaml_config.write(config, folder / CONFIG)
