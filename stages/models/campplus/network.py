"""CAM++'s network: FunASR's module, and the one graph from features to the embedding of who speaks."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from stages.core.graphs import Axis, Case, Graph, GraphSet, Tensor
from stages.models.campplus import schema
from stages.models.campplus.schema import FEATURES
from stages.models.shared import checkpoint, sherpa

if TYPE_CHECKING:
    from funasr.models.campplus.components import BasicResBlock, CAMDenseTDNNBlock
    from funasr.models.campplus.model import CAMPPlus

SCHEMAS = {"CAMPPlus": schema.Campplus}
FRAMES_PER_SECOND = 100
SEGMENT = 100  # steps of the network, two frames each, that a layer of a dense block takes the mean of
SHORTEST = 3  # frames: the deviation over time needs two after the network's stride
BLOCKS = ("block1", "block2", "block3")


def read_config(folder: Path) -> dict[str, Any]:
    """Read config.yaml of a checkpoint.

    Raises:
        UserError: it is not what the schema wants.
    """
    config, _ = checkpoint.read_config(folder, "campplus", SCHEMAS)
    return config


def build(config: dict[str, Any]) -> CAMPPlus:
    """Build FunASR's module for a configuration with random weights, in evaluation mode."""
    with checkpoint.importing_funasr():
        from funasr.models.campplus.model import CAMPPlus

    conf = dict(config.get("model_conf") or {})
    kept = {key: width for key, width in (conf.pop("kept_channels", None) or {}).items() if width is not None}
    model = CAMPPlus(**conf)
    for key, width in kept.items():
        _narrow_head(model, width) if key == "head" else _narrow_block(model.xvector, key, width)
    return model.eval()


def load(folder: Path) -> CAMPPlus:
    """Load the checkpoint as FunASR's own module, in evaluation mode.

    Raises:
        UserError: config.yaml or the weights are not what the family needs.
    """
    return checkpoint.load(build, read_config(folder), folder)


def residual_blocks(model: CAMPPlus) -> dict[str, BasicResBlock]:
    """Return the residual blocks of the convolutions in front, by name."""
    layers = {"layer1": model.head.layer1, "layer2": model.head.layer2}
    return {f"head.{name}.{place}": block for name, layer in layers.items() for place, block in layer.named_children()}


def _narrow_head(model: CAMPPlus, width: int) -> None:
    """Give each residual block `width` channels inside, with random weights."""
    for block in residual_blocks(model).values():
        first, second = block.conv1, block.conv2
        block.conv1 = torch.nn.Conv2d(first.in_channels, width, 3, stride=first.stride, padding=1, bias=False)
        block.bn1 = torch.nn.BatchNorm2d(width)
        block.conv2 = torch.nn.Conv2d(width, second.out_channels, 3, padding=1, bias=False)


def _narrow_block(xvector: torch.nn.Module, name: str, width: int) -> None:
    """Give each layer of a dense block `width` channels inside, and half as many to its context, as FunASR does."""
    with checkpoint.importing_funasr():
        from funasr.models.campplus.components import CAMDenseTDNNBlock

    block: CAMDenseTDNNBlock = getattr(xvector, name)
    first = next(block.children())
    local = first.cam_layer.linear_local
    narrow = CAMDenseTDNNBlock(
        num_layers=len(block),
        in_channels=first.linear1.in_channels,
        out_channels=local.out_channels,
        bn_channels=width,
        kernel_size=local.kernel_size[0],
        dilation=local.dilation[0],
        memory_efficient=first.memory_efficient,
    )
    setattr(xvector, name, narrow)


class ExportedNetwork(torch.nn.Module):
    """FunASR's network with the contexts of its dense layers computed once a segment.

    FunASR spreads the mean of each segment over all of its steps first, and then computes the same at each of them.
    """

    def __init__(self, model: CAMPPlus) -> None:
        """Share the weights of `model`."""
        super().__init__()
        shared = {id(weight): weight for weight in (*model.parameters(), *model.buffers())}
        self.model = copy.deepcopy(model, shared)
        for key in BLOCKS:
            for layer in getattr(self.model.xvector, key).children():
                layer.cam_layer.forward = partial(_mask_by_context, layer.cam_layer)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute embeddings (batch, embedding_size) of features (batch, frames, 80)."""
        embedding: torch.Tensor = self.model(x)
        return embedding


def _mask_by_context(cam: Any, x: torch.Tensor) -> torch.Tensor:
    """Return what FunASR's CAMLayer does: a convolution, times a mask from the means of the whole and of the segment.

    x: (batch, channels, steps).
    """
    # There is no padding to count. But ONNX Runtime up to 1.20.1 divides what a last, shorter segment has by the length
    # of whole ones, unless it is told not to.
    means = torch.nn.functional.avg_pool1d(x, SEGMENT, SEGMENT, ceil_mode=True, count_include_pad=False)
    mask = torch.sigmoid(cam.linear2(torch.relu(cam.linear1(x.mean(-1, keepdim=True) + means))))
    spread = mask.unsqueeze(-1).expand(*mask.shape, SEGMENT).reshape(*mask.shape[:-1], -1)
    masked: torch.Tensor = cam.linear_local(x) * spread[..., : x.shape[-1]]
    return masked


def graph_set(model: CAMPPlus) -> GraphSet:
    """Describe the one graph of the family, with the names that sherpa-onnx's own exports have.

    Recordings of a batch have one length: the network has no mask, so that padding would count in its means.
    """
    return GraphSet(
        graphs={
            "model": Graph(
                file="model.onnx",
                inputs={"x": Tensor(dtype="float32", shape=["N", "T", FEATURES])},
                outputs={
                    "embedding": Tensor(dtype="float32", shape=["N", model.xvector.dense.linear.out_channels]),
                },
                states={},
                axes={
                    "N": Axis(min=1, opt=1, max=64),
                    "T": Axis(min=SHORTEST, opt=3 * FRAMES_PER_SECOND, max=60 * FRAMES_PER_SECOND),
                },
            )
        },
        cases={f"{s}s": Case(sizes={"N": 1, "T": int(s * FRAMES_PER_SECOND)}, seconds=s) for s in (1.5, 3.0, 10.0)},
    )


def export_modules(model: CAMPPlus) -> dict[str, torch.nn.Module]:
    """Return the module behind each graph of `graph_set`."""
    return {"model": ExportedNetwork(model)}


def metadata(folder: Path) -> dict[str, sherpa.Metadata]:
    """Return what sherpa-onnx reads in the graph's file."""
    size = checkpoint.described(build, read_config(folder), folder).xvector.dense.linear.out_channels
    return {"model": sherpa.speaker_embedding(size)}
