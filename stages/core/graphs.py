"""A model's ONNX graphs as a set: names, shapes, states and sizes that every stage after export reads."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stages.core import versions
from stages.core.errors import UserError, from_library
from stages.core.files import read_json, sha256, write_json

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

FILE = "graphs.json"
EXTERNAL_BYTES = 2**27  # from here on, weights are mapped from a file, not read and copied
LARGE_TENSOR, SMALL_TENSOR = 2**16, 2**10
Feeds = dict[str, NDArray[Any]]  # a dtype is known only when a graph runs


class Tensor(BaseModel):
    """dtype as numpy names it; a dimension is a size or the name of an axis.

    An input holds any real numbers unless one of these says otherwise. length_of: every value is the
    size of that axis, less where a row of a batch is padded. below: whole numbers from 0 up to it.
    fill: this value everywhere.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    dtype: str
    shape: list[int | str]
    length_of: str | None = None
    below: int | None = None
    fill: float | None = None


class Axis(BaseModel):
    """Sizes of a dynamic axis: the range a graph accepts and the size an engine is tuned for."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    min: int
    opt: int
    max: int


class Graph(BaseModel):
    """One ONNX file. `states` maps an input to the output that is fed back into it, chunk by chunk.

    `axes` are the dynamic axes of the inputs. An output may have others, which follow from the inputs. `weights` is
    the folder, beside that of the graph, with the file of its large weights, if that is not the graph's own.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    file: str
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    states: dict[str, str]
    axes: dict[str, Axis]
    weights: str | None = Field(default=None, exclude_if=lambda folder: folder is None)

    @property
    def usual_sizes(self) -> dict[str, int]:
        """Return the size of every axis that engines are tuned for."""
        return {name: axis.opt for name, axis in self.axes.items()}


class Case(BaseModel):
    """What latency is measured at: the size of every axis, and the seconds of audio that this stands for."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    sizes: dict[str, int]
    seconds: float | None


class GraphSet(BaseModel):
    """The graphs of one variant of a model, and its latency cases, the largest last."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    graphs: dict[str, Graph]
    cases: dict[str, Case]


def read(folder: Path) -> GraphSet:
    """Read the graph set that a stage left in `folder`.

    Raises:
        UserError: it is missing or not as this version of Kiln writes it.
    """
    try:
        return GraphSet.model_validate(read_json(folder / FILE))
    except ValidationError as e:
        raise UserError(
            f"{folder / FILE} is not a graph set ({e.error_count()} problems); run `dvc repro` again"
        ) from e


def write(folder: Path, graph_set: GraphSet, shared: Path | None = None) -> None:
    """Write the graph set beside its ONNX files.

    shared: the folder, beside this one, with the large weights that graphs here refer to and do not have.
    """
    graphs = {
        name: graph.model_copy(update={"weights": shared.name if shared and _lacks(folder / graph.file) else None})
        for name, graph in graph_set.graphs.items()
    }
    write_json(folder / FILE, graph_set.model_copy(update={"graphs": graphs}).model_dump())


def _lacks(place: Path) -> bool:
    """Tell whether a graph refers to weights in another file that is not beside it."""
    import onnx

    tensors = load_proto(place).graph.initializer
    apart = any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in tensors)
    return apart and not _weights_file(place).is_file()


def load(place: Path, weights: Path | None = None) -> ir.Model:
    """Load a graph, its large weights mapped from where they lie.

    weights: their folder; by default where its graph set says.

    Raises:
        UserError: the file cannot be read, or is not ONNX.
    """
    import onnx_ir as ir

    with from_library(f"{place} cannot be read as ONNX"):
        model = ir.load(place)
        ir.external_data.set_base_dir(model.graph, weights or weights_folder(place))
        versions.lift(model)
    return model


def load_proto(place: Path) -> onnx.ModelProto:
    """Load a graph as ONNX's own object; weights in another file stay there.

    Raises:
        UserError: the file cannot be read, or is not ONNX.
    """
    import onnx

    with from_library(f"{place} cannot be read as ONNX"):
        return onnx.load(place, load_external_data=False)


def save(model: ir.Model, place: Path, shared: Path | None = None, *, apart: bool = False) -> None:
    """Write a model in the lowest ONNX versions that it can have; of over 128 MiB of weights, the large ones beside it.

    ONNX Runtime and `onnx_ir.load` map the file beside it; what lies in the graph's own they read and copy.

    shared: a folder whose weights the model may go on referring to. They are not written again, unless more than
    128 MiB are not of it: a graph has one file of weights. apart: put nearly all weights beside it, however few.
    """
    with versions.lowest(model):
        _save(model, place, shared, apart=apart)


def _save(model: ir.Model, place: Path, shared: Path | None, *, apart: bool) -> None:
    import onnx_ir as ir

    weights = {name: v.const_value for name, v in model.graph.initializers.items() if v.const_value is not None}
    own = {name: tensor for name, tensor in weights.items() if not _lies_in(tensor, shared)}
    if apart or sum(tensor.nbytes for tensor in own.values()) > EXTERNAL_BYTES:
        least = SMALL_TENSOR if apart else LARGE_TENSOR
        ir.save(model, place, external_data=_weights_file(place).name, size_threshold_bytes=least)
        return
    if foreign := {name: tensor for name, tensor in own.items() if isinstance(tensor, ir.ExternalTensor)}:
        model = model.clone()  # or the graph would go on pointing into the file of the one it was made of
        for name, tensor in foreign.items():
            model.graph.initializers[name].const_value = ir.tensor(tensor.numpy(), name=name)
    ir.save(model, place)


def set_apart(model: ir.Model) -> dict[str, ir.ExternalTensor]:
    """Replace the weights that lie in another file by inputs, in place, and return them: libraries copy weights."""
    import onnx_ir as ir

    values = model.graph.initializers
    apart = {name: v.const_value for name, v in values.items() if isinstance(v.const_value, ir.ExternalTensor)}
    model.graph.inputs.extend(values.pop(name) for name in apart)
    return apart


def _lies_in(tensor: ir.TensorProtocol, folder: Path | None) -> bool:
    import onnx_ir as ir

    return folder is not None and isinstance(tensor, ir.ExternalTensor) and Path(tensor.base_dir) == folder


def weights_folder(place: Path, shared: Path | None = None) -> Path:
    """Return the folder with a graph's large weights: its own, or `shared`, which by default its graph set names."""
    if _weights_file(place).is_file():
        return place.parent
    graph = declared(place)
    return shared or (place.parent.parent / graph.weights if graph and graph.weights else place.parent)


def declared(place: Path) -> Graph | None:
    """Return a graph's entry in the graph set beside it, or None where there is no graph set."""
    return next((graph for graph in _listed(place.parent) if graph.file == place.name), None)


def parts(place: Path, shared: Path | None = None) -> list[Path]:
    """Return a graph's file, and that of its large weights where there is one; shared: as in `weights_folder`."""
    weights = weights_folder(place, shared) / _weights_file(place).name
    return [place, weights] if weights.is_file() else [place]


def copy(place: Path, folder: Path) -> Path:
    """Put a graph and its large weights into a folder, side by side."""
    for path in parts(place):
        shutil.copyfile(path, folder / path.name)
    return folder / place.name


@contextmanager
def whole(place: Path, folder: Path) -> Iterator[Path]:
    """Yield a graph with its large weights beside it, as other programs open it: itself, or a copy below `folder`."""
    if weights_folder(place) == place.parent:
        yield place
        return
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        yield copy(place, Path(scratch))


def _weights_file(place: Path) -> Path:
    """Return the name of the file for a graph's large weights, which is beside the graph."""
    return place.with_name(f"{place.name}.data")


def _listed(folder: Path) -> Collection[Graph]:
    """Return the graphs of a folder's graph set, where it has one."""
    return read(folder).graphs.values() if (folder / FILE).is_file() else ()


def files(folder: Path) -> dict[str, Path]:
    """List every file that makes up an artifact, by name: its own but for records, and weights in another folder."""
    own = [path for path in folder.iterdir() if path.suffix != ".json"]
    apart = [
        folder.parent / graph.weights / _weights_file(folder / graph.file).name
        for graph in _listed(folder)
        if graph.weights
    ]
    return {path.name: path for path in sorted([*own, *apart], key=lambda path: path.name)}


def digests(folder: Path) -> dict[str, str]:
    """Compute the SHA-256 of every file that makes up an artifact, by name."""
    return {name: sha256(path) for name, path in files(folder).items()}


def size(folder: Path) -> int:
    """Sum up the bytes of every file that makes up an artifact."""
    return sum(path.stat().st_size for path in files(folder).values())


def opset(place: Path) -> int:
    """Return the version of the standard operators that the graph in a file uses."""
    import onnx

    imports = onnx.load(place, load_external_data=False).opset_import
    return next(int(domain.version) for domain in imports if domain.domain in {"", "ai.onnx"})


def example_feeds(graph: Graph, sizes: Mapping[str, int], seed: int) -> Feeds:
    """Draw inputs in the shapes that the axis `sizes` give: random values, states zero, lengths full.

    With a `batch` axis, rows after the first are shorter, each by a third of what is left, where the
    graph takes lengths.
    """
    rng = np.random.default_rng(seed)
    return {name: _example(graph, name, tensor, sizes, rng) for name, tensor in graph.inputs.items()}


def _example(
    graph: Graph, name: str, tensor: Tensor, sizes: Mapping[str, int], rng: np.random.Generator
) -> NDArray[np.generic]:
    shape = [d if isinstance(d, int) else sizes[d] for d in tensor.shape]
    if tensor.length_of is not None:
        least = graph.axes[tensor.length_of].min
        shares = (2 / 3) ** np.arange(shape[0])
        lengths = np.maximum(least, np.floor(sizes[tensor.length_of] * shares + 1e-9))
        return np.broadcast_to(lengths, shape[::-1]).T.astype(tensor.dtype)
    if tensor.below is not None:
        return rng.integers(tensor.below, size=shape).astype(tensor.dtype)
    if tensor.fill is not None or name in graph.states:
        return np.full(shape, tensor.fill or 0).astype(tensor.dtype)
    return rng.standard_normal(shape).astype(tensor.dtype)
