"""`kiln drift` finds that a release decides otherwise than its fp32 model on recordings that users collected."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import soundfile
from onnx import numpy_helper

from stages import runtimes
from stages.__main__ import main
from stages.commands import drift
from stages.core import layout
from stages.core.errors import UserError
from stages.core.files import read_json, sha256, write_json
from stages.core.params.section import FORKABLE
from stages.corpora import manifest
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
    Path("noise", "a.mp3").touch()
    with pytest.raises(UserError, match=r"no evaluation\.jsonl, but 1 files of other formats, such as noise/a\.mp3 \("):
        main(["drift", str(RELEASE), "--audio", "noise"])
    collect(tiny_corpus)
    (layout.checkpoint(workspace.MODEL) / "am.mvn").write_text("")
    with pytest.raises(UserError, match=r"am\.mvn is not the file that .* was made of"):
        main(["drift", str(RELEASE), "--audio", "collected"])


def test_all_that_cannot_be_used_is_named_at_once(tiny_corpus: Path, tmp_path: Path):
    folder, first = tmp_path / "collected", next(iter(sorted(tiny_corpus.glob("*.wav"))))
    (folder / "deep").mkdir(parents=True)
    samples, rate = soundfile.read(first)
    for name in ("a.wav", "deep/again.WAV"):
        shutil.copy(first, folder / name)
    soundfile.write(folder / "telephone.wav", samples, 8000)
    soundfile.write(folder / "stereo.wav", np.stack([samples, samples], axis=1), rate)
    soundfile.write(folder / "nothing.wav", samples[:0], rate)
    (folder / "cut.wav").write_bytes(first.read_bytes()[:20])
    shutil.copy(first, os.fsdecode(os.fsencode(folder) + b"/\xff.wav"))
    with pytest.raises(UserError, match="6 of 7 WAV files cannot be used; convert") as refused:
        drift.collected(folder)
    said = str(refused.value)
    for line in (
        "again.WAV: the same sound as",
        "telephone.wav: found WAV 8000 Hz",
        "stereo.wav: found WAV 16000 Hz, 2",
    ):
        assert line in said
    for line in ("nothing.wav: found", "cut.wav is not a WAV file", "xff.wav': its name is not UTF-8"):
        assert line in said


def test_names_in_any_language_are_taken_and_other_formats_are_named(
    tiny_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    first, second, *_ = sorted(tiny_corpus.glob("*.wav"))
    (tmp_path / "客服").mkdir()
    shutil.copy(first, tmp_path / "客服" / "电话 1.wav")
    shutil.copy(second, tmp_path / "b.wav")
    (tmp_path / "c.flac").touch()
    recordings, truth = drift.collected(tmp_path)
    assert ([recording.id for recording in recordings], truth) == (["b.wav", "客服/电话 1.wav"], False)
    assert capsys.readouterr().out.startswith(f"left out: 1 files of other formats, such as {tmp_path / 'c.flac'} (")


def test_a_data_set_is_checked_as_a_build_does(tiny_corpus: Path, tmp_path: Path):
    folder = Path(shutil.copytree(tiny_corpus, tmp_path / "set"))
    manifest.read(folder, "evaluation")[0].path.unlink()
    with pytest.raises(UserError, match=r"\.wav is not there"):
        drift.collected(folder)


def test_recordings_in_which_nothing_is_found_prove_nothing(
    place, tiny_export, tiny_checkpoint, tiny_corpus, monkeypatch
):
    release(place, tiny_export, tiny_checkpoint)
    collect(tiny_corpus)
    monkeypatch.setattr(drift, "measure", lambda *_, **__: {METRIC: {"baseline": None, "value": None}})
    with pytest.raises(UserError, match="collected has nothing to measure"):
        main(["drift", str(RELEASE), "--audio", "collected"])


def test_a_release_for_another_onnx_runtime_is_measured_in_that(
    place, tiny_export, tiny_checkpoint, tiny_corpus, monkeypatch
):
    release(place, tiny_export, tiny_checkpoint)
    entered = []
    monkeypatch.setattr(runtimes, "enter", lambda *given: entered.append(given))
    collect(tiny_corpus)
    main(["drift", str(RELEASE), "--audio", "collected"])
    assert entered == [("onnxruntime", "__main__", ["drift", str(RELEASE), "--audio", "collected"])]


def test_what_cannot_be_forked_is_run_by_one_process(place, tiny_export, tiny_checkpoint, tiny_corpus, monkeypatch):
    release(place, tiny_export, tiny_checkpoint)
    collect(tiny_corpus)
    asked = []

    def evaluate(*_: object, processes: int | None, **__: object) -> dict[str, object]:
        asked.append(processes)
        return {"not_finite": 0, "metrics": {METRIC: {"baseline": None}}}

    monkeypatch.setattr(drift, "evaluate", evaluate)
    for forkable in (FORKABLE, ()):
        monkeypatch.setattr("stages.evaluate.FORKABLE", forkable)
        with pytest.raises(UserError, match="nothing to measure"):
            main(["drift", str(RELEASE), "--audio", "collected"])
    assert asked == [None, 1]
