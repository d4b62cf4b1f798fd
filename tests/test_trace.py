"""TorchScript computes what torch does, at lengths and with states that it was not traced at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from stages import runtimes, trace
from stages.core import graphs, params, plan
from stages.core.errors import UserError
from stages.core.files import sha256
from stages.core.parity import largest_differences
from stages.models import fsmn_vad, paraformer
from stages.models.protocols import Family
from stages.models.shared.checkpoint import torch_artifact
from stages.runtimes import torchscript
from tests.workspace import ROOT


@pytest.mark.parametrize("family", [fsmn_vad, paraformer], ids=["with states", "with tokens to count"])
def test_it_computes_what_torch_does_at_every_length(family: Family[Any], tiny_checkpoint: Path, tmp_path: Path):
    checkpoint = tiny_checkpoint if family is fsmn_vad else ROOT / "zoo" / "paraformer"
    digests = trace.trace(family, checkpoint, tmp_path)
    assert digests == {"model.torchscript": sha256(tmp_path / "model.torchscript")}
    graph_set, networks = torch_artifact(family, family.load(checkpoint))
    found = runtimes.load(tmp_path, graph_set, "torchscript", 1)
    assert max(largest_differences(graph_set.graphs["model"], networks["model"], found["model"]).values()) < 1e-6


def test_what_cannot_be_traced_is_named(tiny_export: Path, tmp_path: Path):
    class Unsure(torch.nn.Module):
        def forward(self, *_inputs: torch.Tensor) -> str:
            return "no tensor"

    graph = graphs.read(tiny_export).graphs["model"]
    with pytest.raises(UserError, match=r"model\.torchscript: torch .* could not trace it"):
        torchscript.trace(Unsure(), graph, tmp_path / "model.torchscript")


def test_a_target_of_it_is_made_of_the_checkpoint_by_the_stage_trace():
    p = params.load(ROOT / "params.yaml")
    vad = p.models["fsmn_vad"].model_copy(update={"targets": ["torchscript_fp32"]})
    tables = plan.derive(p.model_copy(update={"models": {"fsmn_vad": vad}}))
    assert list(tables.trace) == ["fsmn_vad-torchscript_fp32"]
    assert tables.builds["fsmn_vad-torchscript_fp32"].artifact == "fsmn_vad/dense/torchscript_fp32"
    assert not tables.engine
