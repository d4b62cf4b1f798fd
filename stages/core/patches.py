"""What is replaced in other libraries for as long as a block lasts, each with where it was seen and why.

Seen in ONNX Runtime 1.32, onnxscript 0.7, DVC 3.67 and Ray 2.60; tests/core/test_patches.py and
tests/extras/test_cluster.py fail when it is another.
"""

from __future__ import annotations

import io
import logging
import re
import shlex
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stages.core.files import write_text

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    import onnx

BY_CHANNEL = "quantize_weight_per_channel_impl"  # of ONNX Runtime's BaseQuantizer
WITH_SHAPES = "save_and_reload_model_with_shape_infer"  # of its onnx_quantizer
RULES = "_DEFAULT_REWRITE_RULES"  # of onnxscript's rewriter
LOAD = "load_path"  # of dvc.dependency.param
RUN = "_run"  # of dvc.stage.run
LOAD_FILE = "load_file"  # of dvc.dvcfile
DUMP = "dump_stages"  # of its Lockfile
PRINT = "print_to_stdstream"  # of Ray's worker
PATHS = "dpath"  # the library as that module knows it
LOCK_HEAD = "schema: '2.0'\nstages:\n"
NEXT_STAGE = re.compile(r"\n  \S")
QUADRATIC = "SlicesSplit"  # the one of them that has several outputs
Scales = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""The scale of each column of a weight (inputs, outputs)."""


@contextmanager
def _replace(owner: Any, name: str, new: Any) -> Iterator[None]:
    old = getattr(owner, name)
    setattr(owner, name, new)
    try:
        yield
    finally:
        setattr(owner, name, old)


@contextmanager
def quantizers() -> Iterator[None]:
    """Run ONNX Runtime's quantizers without their prints and their advice to pre-process, as `simplify` has done.

    And without two copies of the model, which they make and keep to learn the shapes of its values.
    """
    from onnxruntime.quantization import onnx_quantizer

    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()), _replace(onnx_quantizer, WITH_SHAPES, with_shapes):
            yield
    finally:
        logger.setLevel(level)


def with_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model itself, its values' shapes inferred; the pass does that without copying the large weights."""
    import onnx_ir as ir
    from onnx_ir.passes.common import ShapeInferencePass

    inferred = ShapeInferencePass()(ir.from_proto(model)).model
    values = [value for node in inferred.graph for value in node.outputs if not value.is_graph_output()]
    del model.graph.value_info[:]
    model.graph.value_info.extend(ir.serde.serialize_value(value) for value in values if value.type is not None)
    return model


@contextmanager
def weights_scaled_by(scales: Scales) -> Iterator[None]:
    """Have ONNX Runtime quantize INT8 matrices with these scales, all channels at once.

    Its own loop over the channels takes twice the time at 220 M parameters.
    """
    from onnxruntime.quantization.base_quantizer import BaseQuantizer

    with _replace(BaseQuantizer, BY_CHANNEL, _quantize_at_once(getattr(BaseQuantizer, BY_CHANNEL), scales)):
        yield


def _quantize_at_once(loop: Callable[..., tuple[str, str, str]], scales: Scales) -> Callable[..., tuple[str, str, str]]:
    """Return a function that quantizes all channels at once, as the loop does one after the other.

    It takes the loop's arguments, adds initializers of the same names and returns those; what is not an INT8 matrix is
    left to the loop.
    """
    import onnx

    def quantize_weight(quantizer: Any, name: str, kind: int, axis: int, *rest: Any) -> tuple[str, str, str]:
        tensor = quantizer.model.get_initializer(name)
        if kind != onnx.TensorProto.INT8 or len(tensor.dims) != 2:
            return loop(quantizer, name, kind, axis, *rest)
        weight = onnx.numpy_helper.to_array(tensor)
        outputs_last = axis % 2 == 1
        scale = scales(weight if outputs_last else weight.T)
        numbers = np.rint(weight / (scale if outputs_last else scale[:, None])).astype(np.int8)
        names = (f"{name}_quantized", f"{name}_zero_point", f"{name}_scale")
        made: tuple[NDArray[Any], ...] = (numbers, np.zeros(len(scale), np.int8), scale)
        quantizer.model.initializer_extend(list(map(onnx.numpy_helper.from_array, made, names)))
        return names

    return quantize_weight


@contextmanager
def exporter() -> Iterator[None]:
    """Run the optimizer that torch's exporter calls, onnxscript's, without rules of several outputs.

    At each node they go through the whole graph: half the time of Paraformer-large. There is one, and no family has
    what it looks for.
    """
    from onnxscript import rewriter

    rules = getattr(rewriter, RULES)
    with _replace(rewriter, RULES, [rule for rule in rules if rule.name != QUADRATIC]):
        yield


@contextmanager
def dvc_params() -> Iterator[None]:
    """Have DVC parse params.yaml once for as long as it is the same file, and follow a key's path to its value.

    DVC parses it for every stage, and goes through all that a file has for every key. A build with nothing to do takes
    two thirds of the time then, and with a thousand models, time in proportion to them and not to their square.
    """
    import dpath
    from dvc.dependency import param

    load = getattr(param, LOAD)
    known: dict[tuple[str, int, int], Any] = {}

    def load_path(path: str, fs: Any, **settings: Any) -> Any:
        if settings or fs.protocol != "local":
            return load(path, fs, **settings)
        found = Path(path).stat()
        key = (str(path), found.st_mtime_ns, found.st_size)
        if key not in known:
            known[key] = load(path, fs)
        return known[key]

    def look_up(values: Any, path: str, *, separator: str) -> Any:
        found = values
        for key in path.split(separator):
            if not isinstance(found, dict) or key not in found:
                return dpath.get(values, path, separator=separator)
            found = found[key]
        return found

    paths = SimpleNamespace(get=look_up, search=dpath.search)
    with _replace(param, LOAD, load_path), _replace(param, PATHS, paths):
        yield


@contextmanager
def dvc_files() -> Iterator[None]:
    """Have DVC read a dvc.yaml, and what its templates iterate, once for as long as it is the same file.

    DVC reads it for each stage that it is told to build or to push.
    """
    from dvc import dvcfile

    load = getattr(dvcfile, LOAD_FILE)
    known: dict[tuple[str, int, int], Any] = {}

    def load_file(repo: Any, path: Any, **settings: Any) -> Any:
        if settings or not Path(path).is_file():
            return load(repo, path, **settings)
        key = (str(Path(path).absolute()), Path(path).stat().st_mtime_ns, id(repo))
        if key not in known:
            known[key] = load(repo, path)
        return known[key]

    with _replace(dvcfile, LOAD_FILE, load_file):
        yield


@contextmanager
def dvc_locks() -> Iterator[None]:
    """Have DVC write a stage's lines alone into the text of a dvc.lock, in one step that a kill cannot tear.

    DVC parses and writes all of a file for each stage: 20 ms for each stage that is in it.
    """
    from dvc.dvcfile import Lockfile

    with _replace(Lockfile, DUMP, _lines_alone(getattr(Lockfile, DUMP))):
        yield


def _lines_alone(dump: Callable[..., None]) -> Callable[..., None]:
    """Return a function that leaves in a dvc.lock the text that `dump` of DVC does, which gets what is no such file."""
    from dvc import dvcfile

    def dump_stages(lock: Any, stages: Sequence[Any], **settings: Any) -> None:
        place = Path(lock.path)
        before = place.read_text(encoding="utf-8") if place.is_file() else ""
        if not before.startswith(LOCK_HEAD) or not before.endswith("\n") or "\ndatasets:" in before:
            return dump(lock, stages, **settings)
        text = before
        for stage in stages:
            text = _with_lines(text, _entry(dvcfile.serialize.to_lockfile(stage, **settings)))
        if text != before:
            dvcfile.logger.info("Updating lock file '%s'", lock.relpath)
            write_text(place, text)
            lock.repo.scm_context.track_file(lock.relpath)
        return None

    return dump_stages


def _entry(stage: dict[str, Any]) -> str:
    """Return the lines of a stage in a dvc.lock."""
    from dvc.utils.serialize import dumps_yaml

    text: str = dumps_yaml({"stages": stage})
    return text.partition("\n")[2]


def _with_lines(text: str, entry: str) -> str:
    """Return the text of a dvc.lock with the lines of a stage in the place of those that it had, or at the end."""
    name = entry.partition("\n")[0]
    begin = text.find(f"\n{name}\n") + 1
    if not begin:
        return text + entry
    following = NEXT_STAGE.search(text, begin + len(name))
    return text[:begin] + entry + (text[following.start() + 1 :] if following else "")


@contextmanager
def ray_prints() -> Iterator[None]:
    """Keep Ray from printing the state of a machine that was lost: we say so in one line."""
    from ray._private import worker

    with _replace(worker, PRINT, lambda *_, **__: None):
        yield


@contextmanager
def dvc_stages(start: Callable[[str, Sequence[str], str, Mapping[str, str]], BaseProcess]) -> Iterator[None]:
    """Have DVC run `python -m MODULE ARGUMENTS` as a process that `start` starts, and other commands as ever."""
    from dvc.stage import run
    from dvc.stage.exceptions import StageCmdFailedError

    run_in_shell = getattr(run, RUN)

    def run_command(executable: str, command: str, **settings: Any) -> None:
        python, *options = shlex.split(command)
        if [python, *options[:1]] != ["python", "-m"]:
            run_in_shell(executable, command, **settings)
            return
        process = start(options[1], options[2:], settings["cwd"], settings["env"])
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # the stage gets it too, and ends as it does
        process.join()
        signal.signal(signal.SIGINT, handler)
        if process.exitcode:
            raise StageCmdFailedError(command, process.exitcode)

    with _replace(run, RUN, run_command):
        yield
