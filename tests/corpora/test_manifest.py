"""A user's own recordings are taken as they should be, or refused with what was found and wanted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from stages.commands import yaml_lines
from stages.core.errors import UserError
from stages.core.files import sha256
from stages.core.params.origins import ManifestDataset
from stages.corpora import manifest
from stages.corpus import corpus, main
from tests import workspace


@pytest.fixture
def folder(tiny_corpus: Path, tmp_path: Path) -> Path:
    """A data set that a test may break."""
    return Path(shutil.copytree(tiny_corpus, tmp_path / "mine"))


def edit(folder: Path, **changes: object) -> None:
    """Change the first line of the evaluation manifest."""
    path = folder / "evaluation.jsonl"
    first, *rest = path.read_text().splitlines()
    path.write_text("\n".join([json.dumps({**json.loads(first), **changes}), *rest]) + "\n")


def put_wav(folder: Path, data: bytes) -> None:
    """Other bytes for the first recording, with their digest in the manifest."""
    (folder / "evaluation-0.wav").write_bytes(data)
    edit(folder, sha256=sha256(folder / "evaluation-0.wav"))


def wav(rate: int = 16_000, channels: int = 1, seconds: float = 3.0) -> bytes:
    path = Path("made.wav")
    soundfile.write(path, np.zeros((int(rate * seconds), channels), np.int16), rate)
    return path.read_bytes()


def test_a_user_s_own_data_set_is_copied_whole(folder: Path, tmp_path: Path):
    (folder / "unrelated.txt").write_text("not listed")
    out = tmp_path / "out"
    out.mkdir()
    corpus(ManifestDataset(kind="manifest", path=str(folder)), out)
    assert [r.id for r in manifest.read(out, "evaluation")] == [f"evaluation-{n}" for n in range(10)]
    assert not (out / "unrelated.txt").exists()


@pytest.mark.parametrize(
    ("made", "said"),
    [
        pytest.param(lambda: wav(rate=8000), "found WAV 8000 Hz, 1 channel", id="wrong-rate"),
        pytest.param(lambda: wav(channels=2), "16000 Hz, 2 channel", id="stereo"),
        pytest.param(lambda: wav(seconds=0), "0 samples; wanted", id="empty-audio"),
        pytest.param(lambda: b"", "is not a WAV file", id="empty-file"),
        pytest.param(lambda: b"plain text", "is not a WAV file", id="not-a-wav"),
        pytest.param(
            lambda: wav(seconds=2.0), r"found 2\.000 s of audio, the manifest says 3\.000 s", id="other-length"
        ),
    ],
)
def test_a_wav_that_cannot_be_used(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, made, said: str):
    monkeypatch.chdir(tmp_path)
    put_wav(folder, made())
    with pytest.raises(UserError, match=said):
        manifest.check(folder)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        pytest.param({"wav": "../outside.wav"}, "would leave its folder", id="path-outside"),
        pytest.param({"sha256": "0" * 64}, "found sha256 .*wanted 0000", id="wrong-digest"),
        pytest.param({"wav": "absent.wav"}, "absent.wav is not there", id="no-file"),
        pytest.param({"segments": [[2.0, 1.0]]}, "segments must be ordered", id="segment-backwards"),
        pytest.param({"segments": [[2.0, 9.0]]}, "within 3.0 s", id="segment-past-the-end"),
        pytest.param({"lable": 1}, "line 1: lable: Extra inputs", id="unknown-key"),
        pytest.param({"id": "evaluation-1"}, r"line 2: the id 'evaluation-1' is that of line 1 too", id="id-twice"),
        pytest.param({"wav": "x" * 300}, r"line 1: 'x+'.*: found .* 300, wanted at most 1024 and 255", id="long-name"),
        pytest.param({"wav": "evaluation-1.wav", "sha256": None}, "go together", id="no-digest"),
        pytest.param({"seconds": float("inf")}, "line 1: seconds: .*finite", id="endless"),
    ],
)
def test_a_line_that_cannot_be_used(folder: Path, changes: dict[str, object], said: str):
    edit(folder, **changes)
    with pytest.raises(UserError, match=said):
        manifest.check(folder)


def test_a_recording_in_two_splits_is_refused(folder: Path):
    shutil.copy(folder / "evaluation.jsonl", folder / "tuning.jsonl")
    with pytest.raises(UserError, match="splits must not share a recording"):
        manifest.check(folder)


@pytest.mark.parametrize("coding", ["PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize("other", ["tuning-0.wav", "evaluation-1.wav"])
def test_one_sound_encoded_in_two_ways_stands_once(folder: Path, coding: str, other: str):
    samples, rate = soundfile.read(folder / other)
    soundfile.write(folder / "evaluation-0.wav", samples, rate, subtype=coding, format="WAVEX")
    edit(folder, sha256=sha256(folder / "evaluation-0.wav"))
    said = "splits must not share" if other.startswith("tuning") else "it would count twice"
    with pytest.raises(UserError, match=rf"evaluation\.jsonl: evaluation-[01] is the same as .*{said}"):
        manifest.check(folder)


def test_a_short_text_may_stand_twice_in_a_split(tmp_path: Path):
    for split in manifest.SPLITS:
        manifest.write(tmp_path, split, [manifest.Line(id=str(n), text=f"好的 {split}") for n in range(2)])
    manifest.check(tmp_path)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        pytest.param({7: float("nan")}, "found nan as sample 7, wanted numbers from -1 to 1$", id="nan"),
        pytest.param({9: float("-inf"), 12: float("nan")}, "found -inf as sample 9, wanted", id="infinite"),
        pytest.param({3: 20_000.0, 5: -12.0}, "found 20000 as sample 3, wanted .*scale of 16-bit", id="16-bit-scale"),
    ],
)
def test_a_sample_that_is_no_audio_is_named(tmp_path: Path, values: dict[int, float], said: str):
    samples = np.full(100, 0.1, np.float32)
    samples[list(values)] = list(values.values())
    soundfile.write(tmp_path / "a.wav", samples, 16_000, subtype="FLOAT")
    with pytest.raises(UserError, match=said):
        manifest.read_wav(tmp_path / "a.wav")


def test_a_peak_a_little_over_full_scale_is_audio(tmp_path: Path):
    soundfile.write(tmp_path / "a.wav", np.array([0.5, 1.3], np.float32), 16_000, subtype="FLOAT")
    assert manifest.read_wav(tmp_path / "a.wav").max() > 1


def test_a_colon_in_the_name_of_a_wav_is_legal(folder: Path, tmp_path: Path):
    (folder / "evaluation-0.wav").rename(folder / "12:30:00.wav")
    edit(folder, wav="12:30:00.wav")
    out = tmp_path / "out"
    out.mkdir()
    corpus(ManifestDataset(kind="manifest", path=str(folder)), out)
    assert (out / "12:30:00.wav").is_file()


def test_messages_name_the_user_s_file_and_nothing_temporary(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    workspace.make(tmp_path)
    monkeypatch.chdir(tmp_path)
    settings = (tmp_path / "params.yaml").read_text()
    text = yaml_lines.insert(settings, ("datasets",), "mine", ["mine: {kind: manifest, path: mine}"])
    (tmp_path / "params.yaml").write_text(text)
    edit(folder, seconds=2.5, segments=[])
    with pytest.raises(UserError, match=r"^mine/evaluation\.jsonl: evaluation-0: found 3\.000 s"):
        main(["mine"])


def test_a_missing_or_empty_manifest_is_named(folder: Path):
    (folder / "tuning.jsonl").write_text("")
    with pytest.raises(UserError, match=r"tuning\.jsonl has no recordings"):
        manifest.check(folder)
    (folder / "tuning.jsonl").unlink()
    with pytest.raises(UserError, match=r"tuning\.jsonl is not there; a data set has"):
        manifest.check(folder)


def test_a_text_may_hold_what_unicode_calls_the_end_of_a_line(folder: Path):
    edit(folder, text="one\u2028two\u0085three", speaker="someone")
    path = folder / "evaluation.jsonl"
    path.write_text(path.read_text().replace("\\u2028", "\u2028").replace("\\u0085", "\u0085"))
    first = manifest.read(folder, "evaluation")[0]
    assert (first.text, first.speaker) == ("one\u2028two\u0085three", "someone")
    manifest.write(folder, "tuning", [manifest.Line(**first.model_dump(exclude={"folder"}))])
    assert manifest.read(folder, "tuning") == [first]


def test_a_manifest_as_windows_saves_it(folder: Path):
    path = folder / "evaluation.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert len(manifest.read(folder, "evaluation")) == 10


def test_a_byte_that_is_not_utf_8_is_named(folder: Path):
    path = folder / "evaluation.jsonl"
    path.write_bytes(path.read_bytes().replace(b"evaluation-2", b"evaluation-\xc4", 1))
    with pytest.raises(UserError, match=r"evaluation\.jsonl line 3: byte \d+ is not UTF-8"):
        manifest.read(folder, "evaluation")
