"""The files of a release that are not as the checkpoint has them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from funasr_onnx.utils.frontend import WavFrontend

from stages.core import graphs
from stages.models import emotion2vec
from stages.release import contents
from tests.workspace import ROOT


@pytest.fixture
def fine_tuned(tmp_path: Path) -> Path:
    """As FunASR's trainer leaves a checkpoint: its paths in config.yaml, and a list of tokens in its own form."""
    folder = tmp_path / "fine_tuned"
    shutil.copytree(ROOT / "zoo" / "paraformer", folder)
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    config["frontend_conf"]["cmvn_file"] = "/home/someone/exp/am.mvn"
    (folder / "config.yaml").write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
    tokens = json.loads((folder / "tokens.json").read_text(encoding="utf-8"))
    (folder / "tokens.txt").write_text("\n".join(tokens), encoding="utf-8")
    return folder


def release(checkpoint: Path, artifact: Path, folder: Path) -> Path:
    """Fill a release with the graph of another checkpoint, which nobody runs here."""
    folder.mkdir()
    contents.fill(artifact, checkpoint, graphs.digests(artifact), folder, integer=False)
    return folder


def test_funasr_onnx_makes_the_front_end_of_a_fine_tuned_checkpoint(
    fine_tuned: Path, tiny_export: Path, tmp_path: Path
):
    folder = release(fine_tuned, tiny_export, tmp_path / "release")
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    assert WavFrontend(cmvn_file=str(folder / "am.mvn"), **config["frontend_conf"]).lfr_n == 6


def test_sherpa_onnx_finds_the_number_of_each_token(fine_tuned: Path, tiny_export: Path, tmp_path: Path):
    folder = release(fine_tuned, tiny_export, tmp_path / "release")
    tokens = json.loads((folder / "tokens.json").read_text(encoding="utf-8"))
    lines = (folder / "tokens.txt").read_text(encoding="utf-8").splitlines()
    assert [line.rsplit(" ", 1) for line in lines] == [[token, str(n)] for n, token in enumerate(tokens)]


def test_another_config_is_released_as_it_is(tiny_export: Path, tmp_path: Path):
    checkpoint = ROOT / "zoo" / "paraformer"
    folder = release(checkpoint, tiny_export, tmp_path / "release")
    assert (folder / "config.yaml").read_bytes() == (checkpoint / "config.yaml").read_bytes()


def test_labels_of_a_release_are_those_of_its_checkpoint(tmp_path: Path):
    (tmp_path / "tokens.json").write_text(json.dumps(["angry", "happy", "<unk>"]), encoding="utf-8")
    (tmp_path / "tokens.txt").write_text(contents.sherpa_tokens(tmp_path / "tokens.json"), encoding="utf-8")
    assert emotion2vec.labels(tmp_path) == ("angry", "happy", "unknown")
