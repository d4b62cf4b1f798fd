"""`kiln drift` finds that a release decides otherwise than its fp32 model on recordings that users collected."""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx
import pytest
from onnx import numpy_helper

from stages.__main__ import main
from stages.core import layout
from stages.core.errors import UserError
from stages.core.files import read_json, sha256, write_json
from tests import workspace
from tests.release import released

RELEASE = layout.RELEASE / released.BUILD
METRIC = workspace.AGREEMENT


@pytest.fixture(scope="module")
def damaged(tiny_export: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny graphs with a bias that calls every frame silence, where the checkpoint calls every one speech."""
    folder = tmp_path_factory.mktemp("damaged") / "export"
    shutil.copytree(tiny_export, folder)
    graph = onnx.load(folder / "model.onnx")
    (bias,) = (each for each in graph.graph.initializer if each.name.endswith("out_linear2.linear.bias"))
    values = numpy_helper.to_array(bias).copy()
    values[0] += 5
    bias.CopyFrom(numpy_helper.from_array(values, bias.name))
    onnx.save(graph, folder / "model.onnx")
    return folder


@pytest.fixture
def place(tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for a workspace whose model is the tiny checkpoint, pinned."""
    files = {p.name: {"size": p.stat().st_size, "sha256": sha256(p)} for p in tiny_checkpoint.iterdir()}
    pin = read_json(workspace.ROOT / "pins" / f"{workspace.MODEL}.json") | {"files": files}
    write_json(tmp_path / "pins" / f"{workspace.MODEL}.json", pin)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def release(place: Path, export: Path, checkpoint: Path) -> None:
    released.make(place, export)
    shutil.copytree(checkpoint, layout.checkpoint(workspace.MODEL), dirs_exist_ok=True)


def collect(corpus: Path) -> None:
    """Put WAV files into a folder, as users do: nothing says what is true of them."""
    for number, path in enumerate(sorted(corpus.glob("*.wav"))):
        target = Path("collected", str(number % 2), path.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)


def row(text: str, metric: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(f"| {metric} |"))


def test_what_says_the_same_has_not_drifted(place, tiny_export, tiny_checkpoint, tiny_corpus, capsys):
    release(place, tiny_export, tiny_checkpoint)
    collect(tiny_corpus)
    main(["drift", str(RELEASE), "--audio", "collected"])
    said = capsys.readouterr().out
    assert "on 18 recordings of collected" in said
    assert "1.0000, drift +0.0000" in row(said, METRIC)
    assert "truth" not in said


def test_a_planted_drift_is_found_with_and_without_truth(place, damaged, tiny_checkpoint, tiny_corpus, capsys):
    release(place, damaged, tiny_checkpoint)
    collect(tiny_corpus)
    for audio in ("collected", str(tiny_corpus)):
        with pytest.raises(UserError, match=f"loses more on {audio} than it may: {METRIC}"):
            main(["drift", str(RELEASE), "--audio", audio])
        assert row(capsys.readouterr().out, METRIC).endswith("| 0.01 | fail |")


def test_what_cannot_be_compared_is_said(place, tiny_export, tiny_checkpoint, tiny_corpus):
    release(place, tiny_export, tiny_checkpoint)
    Path("empty").mkdir()
    with pytest.raises(UserError, match=r"empty: found no WAV file and no evaluation\.jsonl"):
        main(["drift", str(RELEASE), "--audio", "empty"])
    Path("noise").mkdir()
    Path("noise", "a.wav").write_bytes(b"RIFF")
    with pytest.raises(UserError, match=r"a\.wav is not a WAV file"):
        main(["drift", str(RELEASE), "--audio", "noise"])
    shutil.rmtree("noise")
    collect(tiny_corpus)
    (layout.checkpoint(workspace.MODEL) / "am.mvn").write_text("")
    with pytest.raises(UserError, match=r"am\.mvn is not the file that .* was made of"):
        main(["drift", str(RELEASE), "--audio", "collected"])
