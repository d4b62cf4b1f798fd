"""Outputs are whole or absent."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path

import pytest

from stages.core.errors import UserError
from stages.core.files import (
    check_sha256,
    new_folder,
    read_json,
    safe_relative,
    scratch_folder,
    sha256,
    write_json,
    write_text,
)


def test_a_folder_appears_whole_and_replaces_the_old_one(tmp_path: Path):
    place = tmp_path / "a" / "out"
    for content in ("one", "two"):
        with new_folder(place) as folder:
            (folder / "f").write_text(content)
            assert not (place / "f").exists() or (place / "f").read_text() == "one"
    assert (place / "f").read_text() == "two"
    assert list(place.parent.iterdir()) == [place]


def test_a_failure_leaves_the_old_folder_and_no_trace(tmp_path: Path):
    place = tmp_path / "out"
    with new_folder(place) as folder:
        (folder / "f").write_text("good")
    with pytest.raises(OSError, match="No space"):
        _fill_the_disk(place)
    assert (place / "f").read_text() == "good"
    assert list(tmp_path.iterdir()) == [place]


def _fill_the_disk(place: Path) -> None:
    with new_folder(place) as folder:
        (folder / "f").write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_named_whatever_a_native_writer_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match=r"No space left on device.*out"):
        _write_half(tmp_path / "out")


def _write_half(place: Path) -> None:
    with new_folder(place):
        raise ValueError("Wire format was corrupt")


def test_what_a_killed_run_left_is_removed(tmp_path: Path):
    left = tmp_path / ".out.k1ll3d_x.tmp"
    left.mkdir()
    with new_folder(tmp_path / "out"):
        assert not left.exists()


def test_text_is_replaced_in_one_step(tmp_path: Path):
    write_text(tmp_path / "f", "old")
    write_text(tmp_path / "f", "new")
    assert [p.read_text() for p in tmp_path.iterdir()] == ["new"]


def test_a_scratch_folder_is_empty_whatever_a_kill_left_and_gone_afterwards(tmp_path: Path):
    place = tmp_path / "scratch"
    place.mkdir()
    (place / "left").touch()
    with scratch_folder(place) as folder:
        assert list(folder.iterdir()) == []
        (folder / "more").touch()
    assert not place.exists()


def test_text_that_a_kill_left_half_written_is_removed_and_nothing_else(tmp_path: Path):
    for name in (".f.json.k1ll3d_x.tmp", ".f.k1ll3d_x.tmp", ".f.json.tmp"):
        (tmp_path / name).write_text("half")
    write_text(tmp_path / "f.json", "whole")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".f.json.tmp", ".f.k1ll3d_x.tmp", "f.json"]


def test_json_refuses_nan_and_keeps_the_old_file(tmp_path: Path):
    write_json(tmp_path / "f.json", {"a": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "f.json", {"a": float("nan")})
    assert json.loads((tmp_path / "f.json").read_text()) == {"a": 1}


def test_missing_and_broken_json_name_the_command(tmp_path: Path):
    (tmp_path / "f.json").write_text("{")
    for name in ("f.json", "absent.json"):
        with pytest.raises(UserError, match="dvc repro"):
            read_json(tmp_path / name)


def test_a_wrong_digest_says_found_and_wanted(tmp_path: Path):
    (tmp_path / "f").write_text("x")
    with pytest.raises(UserError, match=f"thing: found sha256 {sha256(tmp_path / 'f')} .1 bytes., wanted {'0' * 64}"):
        check_sha256(tmp_path / "f", "0" * 64, "thing")


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../x", "a/../../x", "a\\b", "a\0b"])
def test_a_path_that_leaves_its_folder_is_refused(name: str):
    with pytest.raises(UserError, match="would leave its folder"):
        safe_relative(name, "listing")


def test_a_name_that_no_file_system_takes_is_refused_and_a_colon_is_not():
    with pytest.raises(UserError, match=r"line 3: 'a/x+'\.\.\.: found .* wanted at most 1024 and 255"):
        safe_relative(f"a/{'x' * 256}", "line 3")
    with pytest.raises(UserError, match="wanted at most 1024 and 255"):
        safe_relative("/".join(["é" * 50] * 20), "line 3")
    assert str(safe_relative("a/12:30.wav", "line 3")) == "a/12:30.wav"


def test_a_message_names_the_folder_and_not_the_temporary_one(tmp_path: Path):
    with pytest.raises(UserError, match=f"^{tmp_path}/out/part.txt is empty$"), new_folder(tmp_path / "out") as folder:
        raise UserError(f"{folder / 'part.txt'} is empty")
