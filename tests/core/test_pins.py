"""A lock file that is missing, old or damaged is named, with the command that makes it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stages.core import layout, params, pins
from stages.core.errors import UserError
from stages.core.params import Model
from stages.core.params.origins import FolderSource, ModelScopeSource
from stages.core.pins import Pin, PinnedFile
from tests.workspace import ROOT

FILE = PinnedFile(size=3, sha256="0" * 64)
HUB = ModelScopeSource(kind="modelscope", hub_id="someone/tiny", revision="v1.0.0")
FOLDER = FolderSource(kind="folder", path=Path("zoo/tiny"))
PIN = Pin(hub_id=HUB.hub_id, revision=HUB.revision, files={"model.pt": FILE, "am.mvn": FILE})


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)


def model(source: ModelScopeSource | FolderSource = HUB) -> Model:
    return Model(family="tiny", dataset="none", license="MIT", sources=[source])


def test_what_was_written_is_what_is_demanded():
    pins.write("tiny", PIN)
    assert pins.demand("tiny", model()) == PIN
    assert list(json.loads(layout.pin("tiny").read_text())["files"]) == ["am.mvn", "model.pt"]


def test_a_missing_one_names_the_command():
    with pytest.raises(UserError, match=r"no lock file pins/tiny\.json.*run `kiln pin tiny`"):
        pins.demand("tiny", model())


@pytest.mark.parametrize(
    ("source", "said"),
    [
        pytest.param(
            HUB.model_copy(update={"revision": "v1.0.1"}),
            r"of someone/tiny at v1\.0\.0, params\.yaml wants someone/tiny at v1\.0\.1; run `kiln pin",
            id="another-revision",
        ),
        pytest.param(FOLDER, r"of someone/tiny at v1\.0\.0, params\.yaml wants no hub", id="no-hub"),
    ],
)
def test_one_of_something_else_is_refused(source: ModelScopeSource | FolderSource, said: str):
    pins.write("tiny", PIN)
    with pytest.raises(UserError, match=said):
        pins.demand("tiny", model(source))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param("{", "Invalid JSON", id="cut-off"),
        pytest.param('{"files": {}}', "files: .*at least 1 item", id="no-files"),
        pytest.param('{"files": {"a": {"size": 1}}}', r"files\.a\.sha256: Field required", id="no-digest"),
        pytest.param(json.dumps({"files": {"../a": FILE.model_dump()}}), "would leave its folder", id="a-path-outside"),
        pytest.param('{"files": {"a": {"size": 0, "sha256": "x"}}}', r"files\.a\.size: .*greater than 0", id="empty"),
    ],
)
def test_a_damaged_one_is_named_with_what_is_wrong(content: str, said: str):
    layout.pin("tiny").parent.mkdir()
    layout.pin("tiny").write_text(content)
    with pytest.raises(UserError, match=rf"pins/tiny\.json: .*{said}.*run `kiln pin tiny`"):
        pins.read("tiny")


@pytest.mark.parametrize("path", sorted(ROOT.glob("pins/*.json")), ids=lambda path: path.stem)
def test_the_repository_s_own_are_as_pin_writes_them(path: Path):
    layout.pin(path.stem).parent.mkdir()
    layout.pin(path.stem).write_bytes(path.read_bytes())
    pin = pins.read(path.stem)
    assert pin is not None
    pins.write(path.stem, pin)
    assert layout.pin(path.stem).read_bytes() == path.read_bytes()


def test_every_model_of_the_repository_is_pinned_and_every_committed_file_is_as_pinned(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    for name, each in params.load().models.items():
        pin = pins.demand(name, each)
        for source in each.sources:
            if isinstance(source, FolderSource):
                for file, pinned in pin.files.items():
                    pinned.check(source.path / file, f"{name}: {file}")
