"""An export is what torch computes, has FunASR's names, repeats to the byte, or is not saved."""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx
import pytest
import torch

from stages import export
from stages.core import graphs, layout
from stages.core.errors import UserError
from stages.core.files import read_json, sha256
from stages.core.graphs import Graph
from stages.core.parity import Network
from stages.models import fsmn_vad
from stages.models.shared.checkpoint import torch_networks
from stages.runtimes import onnxruntime
from tests.workspace import ROOT

TOLERANCE = 1e-5


def graph_of(folder: Path) -> Graph:
    return graphs.read(folder).graphs["model"]


def reference_of(checkpoint: Path) -> Network:
    model = fsmn_vad.load(checkpoint)
    return torch_networks(fsmn_vad.graph_set(model), fsmn_vad.export_modules(model))["model"]


def test_names_and_axes_are_funasr_s(tiny_export: Path):
    model = onnx.load(tiny_export / "model.onnx")
    assert [i.name for i in model.graph.input] == ["speech", *(f"in_cache{n}" for n in range(4))]
    assert [o.name for o in model.graph.output] == ["logits", *(f"out_cache{n}" for n in range(4))]
    assert model.graph.input[0].type.tensor_type.shape.dim[1].dim_param == "feats_length"
    assert (model.opset_import[0].version, model.ir_version) == (14, 7)  # of its newest operator, Relu


def test_the_same_checkpoint_gives_the_same_bytes(tiny_checkpoint: Path, tiny_export: Path, tmp_path: Path):
    export.export_variant(fsmn_vad, tiny_checkpoint, tmp_path, opset=18, tolerance=TOLERANCE)
    assert sha256(tmp_path / "model.onnx") == sha256(tiny_export / "model.onnx")


def test_the_record_has_the_file_s_opset_and_what_of_the_checkpoint_is_not_used(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """torch writes 18 where its converter cannot write the older opset that is asked for."""
    monkeypatch.chdir(tmp_path)
    settings = (ROOT / "params.yaml").read_text().replace("  opset: 18", "  opset: 13")
    (tmp_path / "params.yaml").write_text(settings)
    checkpoint = Path(shutil.copytree(tiny_checkpoint, layout.checkpoint("fsmn_vad")))
    weights = torch.load(checkpoint / "model.pt", weights_only=True)
    torch.save(weights | {"head.weight": torch.zeros(3)}, checkpoint / "model.pt")
    with (checkpoint / "config.yaml").open("a") as f:
        f.write("optim: adam\n")
    export.main(["fsmn_vad-dense"])
    folder = layout.graphs("fsmn_vad", "dense", "export")
    written = onnx.load(folder / "model.onnx").opset_import[0].version
    assert written != 13
    record = read_json(folder / "export.json")
    assert record["opset"] == {"model": written}
    assert record["checkpoint"] == {"unknown_config": ["optim"], "unused_weights": ["head.weight"]}


def test_no_path_of_this_machine_is_in_the_graph(tiny_export: Path):
    data = (tiny_export / "model.onnx").read_bytes()
    assert str(Path(export.__file__).parent).encode() not in data
    assert b"site-packages" not in data


def test_a_graph_that_computes_something_else_is_refused(tiny_checkpoint: Path, tiny_export: Path, tmp_path: Path):
    model = onnx.load(tiny_export / "model.onnx")
    softmax = next(node for node in model.graph.node if node.op_type == "Softmax")
    softmax.op_type = "LogSoftmax"
    onnx.save(model, tmp_path / "model.onnx")
    reference = reference_of(tiny_checkpoint)
    with pytest.raises(UserError, match=r"model\.onnx, against torch: differs by .*, at most 1e-05 is allowed"):
        export.check(tmp_path / "model.onnx", graph_of(tiny_export), reference, TOLERANCE)


def test_a_graph_with_other_inputs_is_refused(tiny_checkpoint: Path, tiny_export: Path, tmp_path: Path):
    model = onnx.load(tiny_export / "model.onnx")
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 30
    onnx.save(model, tmp_path / "model.onnx")
    reference = reference_of(tiny_checkpoint)
    with pytest.raises(UserError, match=r"model\.onnx inputs: found .*wanted"):
        export.check(tmp_path / "model.onnx", graph_of(tiny_export), reference, TOLERANCE)


def test_many_weights_go_into_a_file_beside_the_graph(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(graphs, "EXTERNAL_BYTES", 1000)
    monkeypatch.setattr(graphs, "LARGE_TENSOR", 1000)
    export.export_variant(fsmn_vad, tiny_checkpoint, tmp_path, opset=18, tolerance=TOLERANCE)
    assert set(graphs.digests(tmp_path)) == {"model.onnx", "model.onnx.data"}
    assert (tmp_path / "model.onnx.data").stat().st_size > (tmp_path / "model.onnx").stat().st_size


def test_a_truncated_graph_is_named_where_it_is_loaded(tiny_export: Path, tmp_path: Path):
    shutil.copytree(tiny_export, tmp_path, dirs_exist_ok=True)
    data = (tmp_path / "model.onnx").read_bytes()
    (tmp_path / "model.onnx").write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match=r"model\.onnx: ONNX Runtime .* cannot load it"):
        onnxruntime.load(tmp_path, graphs.read(tmp_path))
