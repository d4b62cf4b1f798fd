"""`kiln data import`: a user's speech becomes a data set that `corpus` takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from stages import corpus
from stages.__main__ import main
from stages.core import layout, params, plan
from stages.core.errors import UserError
from stages.corpora import manifest
from tests.corpora.imports import speech
from tests.hub import files_of
from tests.workspace import ROOT

TEXT = (ROOT / "params.yaml").read_text()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with the real params.yaml, and Kaldi data of six speakers beside it."""
    (tmp_path / "repository").mkdir()
    monkeypatch.chdir(tmp_path / "repository")
    Path("params.yaml").write_text(TEXT)
    return speech.kaldi(tmp_path / "train", speakers=6)


def untouched() -> bool:
    return Path("params.yaml").read_text() == TEXT and not list(Path("data").glob("*"))


def test_kaldi_data_becomes_a_data_set_that_corpus_takes(folder: Path, capsys: pytest.CaptureFixture[str]):
    speech.edit(folder / "wav.scp", str(folder / "s0-u0.wav"), "sox s0-u0.wav -t wav - |")
    speech.put(folder / "s0-u1.wav", rate=8000, channels=2)
    main(["data", "import", "calls", "--kaldi", str(folder)])
    said = capsys.readouterr().out
    assert params.load().datasets["calls"].model_dump() == {"kind": "manifest", "path": "data/calls"}
    corpus.main(["calls"])
    parts = {split: manifest.read(layout.corpus("calls"), split) for split in manifest.SPLITS}
    assert sum(map(len, parts.values())) == 17
    speakers = [{each.speaker for each in recordings} for recordings in parts.values()]
    assert sum(map(len, speakers)) == len(set.union(*speakers)) == 6
    assert {each.text for each in parts["tuning"]} == {f"\u4f60\u597d {each.id}" for each in parts["tuning"]}
    assert "left out: 1\n    1: a command in wav.scp, which is not run: convert the audio" in said
    assert "1 were of 8000 Hz with 2 channels: made 16 kHz mono" in said
    assert "kiln add MODEL --dataset calls" in said
    assert (layout.data("calls") / "left_out.tsv").read_text().startswith("s0-u0\ta command in wav.scp")


@pytest.mark.parametrize(
    ("flag", "make"),
    [
        pytest.param("--aishell", "wav/test/S{n}/S{n}W1.wav", id="aishell"),
        pytest.param("--librispeech", "{n}/1/{n}-1-0000.flac", id="librispeech"),
        pytest.param("--common-voice", "clips/c{n}.mp3", id="common-voice"),
    ],
)
def test_every_layout(tmp_path: Path, flag: str, make: str):
    place, rows = tmp_path / "corpus", []
    for n in range(3):
        path = speech.put(place / make.format(n=n), rate=16_000)
        rows.append(f"client{n}\t{path.name}\tHello\n" if "voice" in flag else f"{path.stem} Hello\n")
        (path.parent / f"{n}-1.trans.txt").write_text(rows[-1])
    (place / "transcript").mkdir()
    (place / "transcript/all.txt").write_text("".join(rows))
    (place / "validated.tsv").write_text("".join(["client_id\tpath\tsentence\n", *rows]))
    main(["data", "import", "mine", flag, str(place)])
    texts = [each.text for split in manifest.SPLITS for each in manifest.read(Path("data/mine"), split)]
    assert texts == ["Hello"] * 3


def test_the_same_data_gives_the_same_bytes_and_another_seed_others(folder: Path):
    for name, seed in (("one", "0"), ("two", "0"), ("three", "1")):
        main(["data", "import", name, "--kaldi", str(folder), "--seed", seed])
    one, two, three = (files_of(layout.data(name)) for name in ("one", "two", "three"))
    assert one == two
    assert one["evaluation.jsonl"] != three["evaluation.jsonl"]


def test_no_more_than_is_asked_for_is_written(folder: Path, capsys: pytest.CaptureFixture[str]):
    main(["data", "import", "calls", "--kaldi", str(folder), "--items", "1,1,2"])
    assert [len(manifest.read(layout.data("calls"), split)) for split in manifest.SPLITS] == [1, 1, 2]
    assert len(list(layout.data("calls").glob("*.wav"))) == 4
    assert "14 more are not needed" in capsys.readouterr().out


def test_another_utterance_takes_the_place_of_one_that_cannot_be_used(folder: Path):
    for path in sorted(folder.glob("*-u[01].wav")):
        path.write_bytes(b"not audio")
    main(["data", "import", "calls", "--kaldi", str(folder), "--items", "1,1,2"])
    ids = [each.id for split in manifest.SPLITS for each in manifest.read(layout.data("calls"), split)]
    assert len(ids) == 4
    assert all(id_.endswith("-u2") for id_ in ids)


def test_the_same_audio_of_two_speakers_is_taken_once(folder: Path, capsys: pytest.CaptureFixture[str]):
    (folder / "s1-u0.wav").write_bytes((folder / "s0-u0.wav").read_bytes())
    main(["data", "import", "calls", "--kaldi", str(folder)])
    assert "1: the same audio as another" in capsys.readouterr().out
    assert len(list(layout.data("calls").glob("*.wav"))) == 17


@pytest.mark.parametrize(
    ("name", "extra", "said"),
    [
        pytest.param("My-Calls", [], "a data set: found 'My-Calls', wanted a name of lower-case", id="name"),
        pytest.param("../calls", [], r"found '\.\./calls', wanted a name", id="a-path"),
        pytest.param("null", [], "found 'null', wanted a name", id="a-word-of-yaml-s"),
        pytest.param("{a", [], "found '{a', wanted a name", id="half-a-mapping"),
        pytest.param("spoken_commands", [], "has a data set 'spoken_commands' already, of kind spoken_", id="taken"),
        pytest.param("calls", ["--items", "1,2"], "--items: found '1,2', wanted a number over 0 for each of", id="two"),
        pytest.param("calls", ["--items", "1,0,2"], "--items: found '1,0,2', wanted a number over 0", id="zero"),
        pytest.param("calls", ["--items", "a,b,c"], "--items: found 'a,b,c', wanted", id="words"),
    ],
)
def test_what_cannot_be_imported_is_refused(folder: Path, name: str, extra: list[str], said: str):
    with pytest.raises(UserError, match=said):
        main(["data", "import", name, "--kaldi", str(folder), *extra])
    assert untouched()


def test_a_folder_that_is_not_there_is_named():
    with pytest.raises(UserError, match="nowhere is not there; wanted data as kaldi has it"):
        main(["data", "import", "calls", "--kaldi", "nowhere"])


def test_two_speakers_are_too_few(tmp_path: Path):
    folder = speech.kaldi(tmp_path / "two", speakers=2)
    with pytest.raises(UserError, match="found 2 speakers with usable utterances, wanted at least 3"):
        main(["data", "import", "calls", "--kaldi", str(folder)])
    assert untouched()


@pytest.mark.parametrize(("speakers", "count"), [(12, 1), (18, 0)])
def test_so_few_speakers_that_no_build_can_pass_are_said_before_it_is_built(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], speakers: int, count: int
):
    folder = speech.kaldi(tmp_path / "few", speakers=speakers, each=2)
    main(["data", "import", "calls", "--kaldi", str(folder), "--items", "4,4,14"])
    said = capsys.readouterr().out
    assert said.count("evaluation: a build takes 10 speakers to pass, here are") == count


def test_commands_for_all_audio_are_named(folder: Path):
    lines = (folder / "wav.scp").read_text().splitlines()
    (folder / "wav.scp").write_text("".join(f"{line} |\n" for line in lines))
    with pytest.raises(
        UserError, match=r"none of 18 utterances can be used\n +18: a command in wav\.scp, which is not run"
    ):
        main(["data", "import", "calls", "--kaldi", str(folder)])
    assert untouched()


def test_a_split_of_which_nothing_is_left_is_named(folder: Path):
    for path in folder.glob("*.wav"):
        path.write_bytes(b"not audio")
    with pytest.raises(UserError, match=r"nothing is left for calibration, tuning, evaluation\n +18: its audio cannot"):
        main(["data", "import", "calls", "--kaldi", str(folder)])
    assert untouched()


def test_a_second_import_does_not_replace_the_first(folder: Path):
    main(["data", "import", "calls", "--kaldi", str(folder)])
    with pytest.raises(UserError, match="data/calls is there already; remove it to import it again"):
        main(["data", "import", "calls", "--kaldi", str(folder)])


def test_import_and_add_make_a_build_on_ones_own_data(folder: Path):
    main(["data", "import", "calls", "--kaldi", str(folder)])
    main(["add", "paraformer", "--dataset", "calls"])
    p = params.load()
    assert p.models["paraformer"].dataset == "calls"
    assert plan.derive(p).quantize["paraformer-dense-int8"].dataset == "calls"


def test_one_layout_must_be_named(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match="2"):
        main(["data", "import", "calls"])
    assert "one of the arguments --kaldi --aishell --librispeech --common-voice is required" in capsys.readouterr().err
