"""What is replaced in other libraries for as long as a block lasts, each with where it was seen and why.

Seen in ONNX Runtime 1.32, onnxscript 0.7 and DVC 3.67; tests/core/test_patches.py fails when it is another.
"""

from __future__ import annotations

import io
import logging
import shlex
import signal
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    import onnx

BY_CHANNEL = "quantize_weight_per_channel_impl"  # of ONNX Runtime's BaseQuantizer
WITH_SHAPES = "save_and_reload_model_with_shape_infer"  # of its onnx_quantizer
RULES = "_DEFAULT_REWRITE_RULES"  # of onnxscript's rewriter
LOAD = "load_path"  # of dvc.dependency.param
RUN = "_run"  # of dvc.stage.run
READER, WRITER = "parse_yaml_for_update", "_get_yaml"  # of dvc.utils.serialize._yaml
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
    """Have DVC parse params.yaml once for as long as it is the same file, and not once for every stage.

    A build with nothing to do then takes two thirds of the time.
    """
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

    with _replace(param, LOAD, load_path):
        yield


@contextmanager
def dvc_locks() -> Iterator[None]:
    """Have DVC rewrite its lock files with libyaml, and not in Python for the sake of comments, which they have none.

    It does so after each stage, and no other stage begins or ends meanwhile: a quarter of the time is left of it. What
    DVC reads is the same; lines of over 80 characters may be folded elsewhere.
    """
    from dvc.utils.serialize import _yaml
    from ruamel.yaml import YAML
    from ruamel.yaml.representer import SafeRepresenter

    class Representer(SafeRepresenter):
        pass

    def writer() -> Any:
        yaml: Any = YAML(typ="safe")
        yaml.Representer = Representer
        yaml.default_flow_style, yaml.sort_base_mapping_type_on_output = False, False
        return yaml

    Representer.add_representer(OrderedDict, SafeRepresenter.represent_dict)
    with _replace(_yaml, READER, _yaml.parse_yaml), _replace(_yaml, WRITER, writer):
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
