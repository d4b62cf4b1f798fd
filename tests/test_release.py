"""A release folder loads and decodes in FunASR's own ONNX runtime, and says there what it says here.

The real graphs of the miniatures, dense and at INT8; for FSMN-VAD, whose weights are not in this repository, the
tiny network of the other tests.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stages import models, package
from stages.core import graphs, params
from stages.core.errors import UserError
from stages.core.files import sha256
from stages.corpora import manifest, punctuated_text, spoken_commands
from stages.corpora.manifest import Recording
from stages.export import export_variant
from stages.models.ct_transformer import read_marks
from stages.models.protocols import Family
from stages.quantize import quantize
from stages.runtimes import onnxruntime
from tests import consumers
from tests.workspace import ROOT

SETTINGS = params.load(ROOT / "params.yaml")
FAMILIES = {
    "fsmn_vad": "fsmn_vad",
    "paraformer": "paraformer",
    "paraformer_streaming": "paraformer_streaming",
    "ct_transformer": "ct_transformer",
    "ct_transformer_realtime": "ct_transformer",
}

Release = Callable[[str, str], Path]


@pytest.fixture(scope="module")
def checkpoints(tiny_checkpoint: Path) -> dict[str, Path]:
    return {name: ROOT / "zoo" / name for name in FAMILIES} | {"fsmn_vad": tiny_checkpoint}


@pytest.fixture(scope="module")
def release(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Release:
    """The release folder of a model's plain export, or of it at INT8, as `package` fills it."""
    made: dict[tuple[str, str], Path] = {}

    def make(model: str, graph: str) -> Path:
        if (model, graph) not in made:
            artifact, folder = tmp_path_factory.mktemp("artifact"), tmp_path_factory.mktemp("release")
            if graph == "export":
                export_variant(
                    family(model),
                    checkpoints[model],
                    artifact,
                    opset=SETTINGS.export.opset,
                    tolerance=SETTINGS.parity.tolerance,
                )
            else:
                plain = make(model, "export")
                recipe = SETTINGS.quantize.recipes[graph].model_copy(update={"smooth": None})  # it needs no data then
                for one in graphs.read(plain).graphs.values():
                    quantize(plain / one.file, artifact / one.file, recipe)
                graphs.write(artifact, graphs.read(plain))
            provenance = {"artifact": {"files": graphs.digests(artifact)}}
            package.package(artifact, checkpoints[model], provenance, folder)
            made[model, graph] = folder
        return made[model, graph]

    return make


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> list[Recording]:
    folder = tmp_path_factory.mktemp("spoken")
    spoken_commands.make(4, {"calibration": 1, "tuning": 1, "evaluation": 6}, folder)
    return manifest.read(folder, "evaluation")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> list[Recording]:
    folder = tmp_path_factory.mktemp("written")
    punctuated_text.make(4, {"calibration": 1, "tuning": 1, "evaluation": 6}, folder)
    return manifest.read(folder, "evaluation")


def family(model: str) -> Family[Any]:
    return models.load(FAMILIES[model])


@pytest.fixture
def ours(checkpoints: dict[str, Path], release: Release) -> Callable[..., list[Any]]:
    """What the family says with the release folder's graphs."""

    def score(model: str, graph: str, recordings: list[Recording], mode: str) -> list[Any]:
        graph_set = graphs.read(release(model, graph))
        artifact = graph_set, onnxruntime.load(release(model, graph), graph_set)
        return family(model).score(checkpoints[model], artifact, mode, recordings)

    return score


GRAPHS = pytest.mark.parametrize("graph", ["export", "int8"])


@GRAPHS
def test_fsmn_vad(release: Release, ours: Callable[..., list[Any]], tiny_corpus: Path, graph: str):
    recordings = manifest.read(tiny_corpus, "evaluation")
    found = consumers.fsmn_vad(release("fsmn_vad", graph), recordings)
    assert found == [outcome.segments for outcome in ours("fsmn_vad", graph, recordings, "offline")]
    assert any(found)


@GRAPHS
def test_fsmn_vad_online(release: Release, ours: Callable[..., list[Any]], tiny_corpus: Path, graph: str):
    recordings = manifest.read(tiny_corpus, "evaluation")[:2]
    outcomes = ours("fsmn_vad", graph, recordings, "streaming")
    found = consumers.fsmn_vad_online(release("fsmn_vad", graph), recordings)
    assert found == [[edge for segment in outcome.segments for edge in segment] for outcome in outcomes]


@GRAPHS
def test_paraformer(release: Release, ours: Callable[..., list[Any]], spoken: list[Recording], graph: str):
    found = consumers.paraformer(release("paraformer", graph), spoken)
    assert found == [outcome.text for outcome in ours("paraformer", graph, spoken, "offline")]
    assert all(found)


@GRAPHS
def test_paraformer_online(release: Release, ours: Callable[..., list[Any]], spoken: list[Recording], graph: str):
    chosen = consumers.streamed_alike(spoken)
    assert chosen
    said = consumers.paraformer_online(release("paraformer_streaming", graph), chosen)
    assert said == [outcome.text for outcome in ours("paraformer_streaming", graph, chosen, "streaming")]
    assert all(said)


@GRAPHS
def test_ct_transformer(release: Release, ours: Callable[..., list[Any]], written: list[Recording], graph: str):
    found = consumers.punctuation(release("ct_transformer", graph), written)
    outcomes = ours("ct_transformer", graph, written, "text")
    assert [read_marks(text) for text in found] == [read_marks(outcome.text) for outcome in outcomes]
    assert any("。" in text for text in found)


@GRAPHS
def test_ct_transformer_vad_realtime(
    release: Release, ours: Callable[..., list[Any]], written: list[Recording], graph: str
):
    model = "ct_transformer_realtime"
    found = [read_marks(text)[1][:-1] for text in consumers.punctuation_realtime(release(model, graph), written)]
    assert found == [outcome.marks for outcome in ours(model, graph, written, "text")]


def test_a_release_says_what_its_bytes_are(release: Release):
    folder = release("paraformer_streaming", "export")
    lines = (line.split("  ") for line in (folder / package.SUMS).read_text().splitlines())
    digests = {name: digest for digest, name in lines}
    assert {"model.onnx", "decoder.onnx", "config.yaml", "tokens.json", "am.mvn", package.PROVENANCE} <= set(digests)
    assert all(sha256(folder / name) == digest for name, digest in digests.items())
    assert not (folder / "model.pt").exists()


def test_another_file_than_the_one_measured_is_not_released(checkpoints: dict[str, Path], tmp_path: Path):
    artifact = tmp_path / "artifact"
    artifact.mkdir()
    (artifact / "model.onnx").write_bytes(b"other")
    provenance = {"artifact": {"files": {"model.onnx": "0" * 64}}}
    with pytest.raises(UserError, match="is not the file that was measured"):
        package.package(artifact, checkpoints["ct_transformer"], provenance, tmp_path)
