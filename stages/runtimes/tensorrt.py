"""TensorRT and TensorRT-RTX, through Polygraphy: engines are built and, where there is a CUDA device, run."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

from stages.core import layout
from stages.core.errors import UserError, from_library
from stages.core.graphs import Feeds, Graph, GraphSet
from stages.core.machine import gpu, why_no_gpu
from stages.core.params import EngineParams
from stages.core.parity import Network

TIMING_CACHE = layout.CACHE / "tensorrt" / "timing.cache"  # outside DVC's outs: it only ever saves time
CURRENT = "current"  # in the place of compute capabilities: the GPU of this machine
SUFFIX = ".engine"
MODULES = {"tensorrt_rtx": "tensorrt_rtx_bindings", "tensorrt": "tensorrt"}
_INSTALL = {
    "tensorrt_rtx": "it has wheels for x86-64 Linux only",
    "tensorrt": "install the extra: pip install '.[tensorrt]' with NVIDIA's index",
}


def why_not_built(runtime: str) -> str | None:
    """Explain why this machine cannot build an engine, or return None."""
    if importlib.util.find_spec(MODULES[runtime]) is None:
        return f"{runtime} is not installed here: {_INSTALL[runtime]}"
    if runtime == "tensorrt" and (why := why_no_gpu()) is not None:
        return f"tensorrt builds an engine on the CUDA device that runs it: {why}"
    return None


def why_unavailable(runtime: str) -> str | None:
    """Explain why this machine cannot run an engine, or return None."""
    if (why := why_not_built(runtime)) is not None:
        return why
    return f"engine built, nothing here to run it: {why}" if (why := why_no_gpu()) else None


def build(onnx: Path, graph: Graph, place: Path, runtime: str, settings: EngineParams) -> dict[str, Any]:
    """Write the engine of a strongly typed network to `place` and describe it.

    Raises:
        UserError: the parser or the builder refuses the graph, naming the operators.
    """
    trt = _import(runtime)
    from polygraphy.backend.trt import CreateConfig, Profile, engine_bytes_from_network, network_from_onnx_path

    profile = Profile()
    for name, tensor in graph.inputs.items():
        shapes = [
            [d if isinstance(d, int) else getattr(graph.axes[d], at) for d in tensor.shape]
            for at in ("min", "opt", "max")
        ]
        profile.add(name, *shapes)
    options: dict[str, Any] = {
        "profiles": [profile],
        "memory_pool_limits": {trt.MemoryPoolType.WORKSPACE: settings.workspace_mib * 2**20},
    }
    with from_library(f"{onnx}: {runtime} {trt.__version__} could not build an engine"):
        if runtime == "tensorrt_rtx":
            from polygraphy.backend.tensorrt_rtx import CreateConfigRTX

            options |= _device_options(trt, settings)
            config: Any = CreateConfigRTX(**options)
            network = network_from_onnx_path(str(onnx))
        else:
            TIMING_CACHE.parent.mkdir(parents=True, exist_ok=True)
            config = CreateConfig(**options, load_timing_cache=str(TIMING_CACHE))
            network = network_from_onnx_path(str(onnx), strongly_typed=True)
        engine = engine_bytes_from_network(
            network, config=config, save_timing_cache=None if runtime == "tensorrt_rtx" else str(TIMING_CACHE)
        )
    place.write_bytes(bytes(engine))
    return {
        "version": trt.__version__,
        "compute_capabilities": settings.compute_capabilities if runtime == "tensorrt_rtx" else [gpu()],
        "gpu": gpu(),
        "layers": network[1].num_layers,
        "inputs": [network[1].get_input(i).name for i in range(network[1].num_inputs)],
        "outputs": [network[1].get_output(i).name for i in range(network[1].num_outputs)],
    }


def _device_options(trt: Any, settings: EngineParams) -> dict[str, Any]:
    """Return what tells Polygraphy which GPUs an engine is for."""
    if settings.compute_capabilities == [CURRENT]:
        return {"use_gpu": True}
    return {"compute_capabilities": [_capability(trt, name) for name in settings.compute_capabilities]}


def _capability(trt: Any, name: str) -> tuple[int, int]:
    """Parse a compute capability: `SM86` is (8, 6), as Polygraphy wants it.

    Raises:
        UserError: this TensorRT-RTX does not build for it.
    """
    known = [k for k in trt.ComputeCapability.__members__ if k.startswith("SM")]
    if name not in known:
        has = f"tensorrt_rtx {trt.__version__} has {', '.join(sorted(known))}, or {CURRENT} alone"
        raise UserError(f"engine.compute_capabilities: found {name!r}; {has}")
    return int(name[2:-1]), int(name[-1])


def load(folder: Path, graph_set: GraphSet, runtime: str) -> dict[str, Network]:
    """Load every engine of a folder on this machine's first CUDA device.

    Raises:
        UserError: an engine was built by another version or for another GPU.
    """
    trt = _import(runtime)
    from polygraphy.backend.common import bytes_from_path
    from polygraphy.backend.trt import TrtRunner, engine_from_bytes

    def network(path: Path, graph: Graph) -> Network:
        with from_library(f"{path}: {runtime} {trt.__version__} on {gpu()} cannot load it"):
            runner = TrtRunner(engine_from_bytes(bytes_from_path(str(path))))
            runner.activate()

        def run(feeds: Feeds) -> Feeds:
            with from_library(f"{path}: {runtime} cannot run it"):
                outputs = runner.infer(feeds)
                return {name: outputs[name].copy() for name in graph.outputs}

        return run

    return {name: network(folder / Path(g.file).with_suffix(SUFFIX), g) for name, g in graph_set.graphs.items()}


def _import(runtime: str) -> Any:
    """Import the runtime's bindings, and have Polygraphy use them in this process.

    Polygraphy wants the name `tensorrt_rtx`, which only a shim package has; the bindings are the same.
    """
    module = importlib.import_module(MODULES[runtime])
    sys.modules.setdefault(runtime, module)
    os.environ["POLYGRAPHY_USE_TENSORRT_RTX"] = "1" if runtime == "tensorrt_rtx" else "0"
    return module
