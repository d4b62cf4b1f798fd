"""A data set of the hub: pinned once, downloaded by the pinned digests, and refused where anything differs."""

from __future__ import annotations

import json
import tempfile
from hashlib import sha256
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from stages import corpus, environment
from stages.__main__ import main
from stages.core import layout, params, pins, plan
from stages.core.errors import UserError
from stages.corpora import manifest
from tests.hub import Files, Hub, files_of
from tests.workspace import ROOT

HUB_ID, REVISION = "someone/calls", "v1.2.0"
LINE = {"kind": "modelscope", "hub_id": HUB_ID, "revision": REVISION, "path": "pins/calls.json"}


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: Hub, tiny_corpus: Path) -> Files:
    """A repository whose params.yaml has the data set `calls`, and a hub that has it; its files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("modelscope_hub._download.DOWNLOAD_INTEGRITY_RETRY_BACKOFF", 0)
    hub.datasets = {HUB_ID: {REVISION: files_of(tiny_corpus) | {"README.md": b"# Calls", "extra.wav": b"RIFF"}}}
    write_params(LINE)
    return hub.datasets[HUB_ID][REVISION]


def write_params(line: dict[str, str], name: str = "calls") -> None:
    settings = YAML(typ="safe").load(ROOT / "params.yaml")
    settings["datasets"][name] = line
    YAML().dump(settings, Path("params.yaml"))


def test_pin_writes_the_manifests_digests_and_corpus_takes_what_they_name(
    hub: Hub, files: Files, capsys: pytest.CaptureFixture[str]
):
    main(["pin", "calls"])
    lock = json.loads(layout.pin("calls").read_text())
    assert (lock["hub_id"], lock["revision"]) == (HUB_ID, REVISION)
    assert sorted(lock["files"]) == ["calibration.jsonl", "evaluation.jsonl", "tuning.jsonl"]
    assert lock["files"]["tuning.jsonl"]["sha256"] == sha256(files["tuning.jsonl"]).hexdigest()
    assert "left out: README.md, extra.wav" in capsys.readouterr().out
    assert not [path for path, _ in hub.downloads if path.endswith(".wav")]
    corpus.main(["calls"])
    wanted = {name: content for name, content in files.items() if name not in {"README.md", "extra.wav"}}
    assert files_of(layout.corpus("calls")) == wanted
    assert len(manifest.read(layout.corpus("calls"), "evaluation")) == 10


def test_a_listing_of_several_pages_is_read_whole(files: Files):
    files |= {f"notes/{number:03}.txt": b"." for number in range(450)}
    files |= {name: files.pop(name) for name in [*files] if name.endswith(".jsonl")}  # now on the last page
    main(["pin", "calls"])
    corpus.main(["calls"])
    assert layout.corpus("calls").is_dir()


def test_one_that_is_not_pinned_is_refused_before_anything_is_built():
    for path in ROOT.glob("pins/*.json"):
        layout.pin(path.stem).parent.mkdir(exist_ok=True)
        layout.pin(path.stem).write_bytes(path.read_bytes())
    plan.write(params.load())
    for stage in (lambda: environment.main([]), lambda: corpus.main(["calls"])):
        with pytest.raises(UserError, match=r"calls: no lock file pins/calls\.json.*run `kiln pin calls`"):
            stage()


@pytest.mark.parametrize(
    ("path", "content", "said"),
    [
        pytest.param("tuning.jsonl", None, r"no tuning\.jsonl among README\.md, calibration", id="a-manifest-missing"),
        pytest.param("tuning.jsonl", b"{}\n", r"tuning\.jsonl line 1: id: Field required", id="a-bad-line"),
        pytest.param(
            "tuning-1.wav", None, r"the manifests name tuning-1\.wav, which the hub does not", id="a-wav-missing"
        ),
        pytest.param("tuning-1.wav", b"RIFF", "has other bytes than the manifests say of tuning-1", id="another-wav"),
        pytest.param(
            "tuning.jsonl",
            json.dumps({"id": "a", "wav": "../../a.wav", "seconds": 1, "sha256": "0" * 64}).encode(),
            r"the path '\.\./\.\./a\.wav' would leave its folder",
            id="a-path-outside",
        ),
    ],
)
def test_what_is_no_data_set_is_refused_at_pin(files: Files, path: str, content: bytes | None, said: str):
    files.pop(path)
    if content is not None:
        files[path] = content
    with pytest.raises(UserError, match=said) as caught:
        main(["pin", "calls"])
    assert tempfile.gettempdir() not in str(caught.value)
    assert pins.read("calls") is None


def test_other_manifests_under_the_same_revision_are_refused(files: Files):
    main(["pin", "calls"])
    before = layout.pin("calls").read_bytes()
    rows = files["tuning.jsonl"].splitlines(keepends=True)
    files["tuning.jsonl"] = b"".join(rows[:-1])
    with pytest.raises(UserError, match=r"lists sha256 [0-9a-f]{64}, wanted"):
        corpus.main(["calls"])
    with pytest.raises(UserError, match=r"other bytes than were pinned for the same revision v1\.2\.0"):
        main(["pin", "calls"])
    assert layout.pin("calls").read_bytes() == before
    assert not layout.corpus("calls").exists()


def test_a_corrupt_download_is_refused(hub: Hub):
    main(["pin", "calls"])
    hub.faults.corrupt = 10**6
    with pytest.raises(UserError, match="keeps sending other bytes than it lists"):
        corpus.main(["calls"])
    assert not layout.corpus("calls").exists()


def test_an_unknown_data_set_and_revision_are_named(hub: Hub):
    write_params(LINE | {"revision": "v1.2.1"})
    with pytest.raises(UserError, match=r"no files at revision 'v1\.2\.1'; did you mean 'v1\.2\.0'"):
        main(["pin", "calls"])
    hub.datasets = {}
    with pytest.raises(UserError, match="has no dataset 'someone/calls'"):
        main(["pin", "calls"])


@pytest.mark.parametrize(
    ("name", "line", "said"),
    [
        pytest.param("calls", LINE | {"revision": "master"}, "'master' can move; wanted a version tag", id="a-branch"),
        pytest.param(
            "calls", LINE | {"path": "calls.json"}, r"wanted its lock file, 'pins/calls\.json'", id="its-path"
        ),
        pytest.param("fsmn_vad", LINE | {"path": "pins/fsmn_vad.json"}, "a model has that name", id="a-model-s-name"),
    ],
)
def test_a_line_that_cannot_be_is_refused(name: str, line: dict[str, str], said: str):
    write_params(line, name)
    with pytest.raises(UserError, match=said):
        main(["pin", name])
