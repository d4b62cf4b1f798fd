"""`kiln verify` and the gate refuse a release folder in which anything is not as it was made, and name the file."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.json_format import ParseDict
from in_toto_attestation.v1 import statement as in_toto
from in_toto_attestation.v1 import statement_pb2

from stages import gate, package
from stages.__main__ import main
from stages.core import layout, params
from stages.core.errors import UserError
from stages.core.files import read_json, sha256, write_json
from stages.release import bom, card, signature, statement, verification
from tests import workspace
from tests.release import released
from tests.release.released import BUILD, PRIVATE, PUBLIC
from tests.workspace import ROOT


@pytest.fixture(scope="module")
def built(tiny_export: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("built")
    released.make(root, tiny_export)
    return root


@pytest.fixture
def release(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The release folder in a copy of the workspace, to be touched."""
    shutil.copytree(built, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return layout.RELEASE / BUILD


def again(folder: Path) -> None:
    """Make the list of digests fit what is there, as whoever changed a file would."""
    (folder / verification.SUMS).write_text(verification.sums(folder))


def edit(folder: Path, name: str = "README.md") -> None:
    with (folder / name).open("ab") as f:
        f.write(b"\n")


def edit_and_list(folder: Path) -> None:
    edit(folder)
    again(folder)


def replace_graph(folder: Path) -> None:
    """Put another graph in its place, and its digest into the list and the subjects."""
    edit(folder, "model.onnx")
    found = read_json(folder / statement.FILE)
    for subject in found["subject"]:
        if subject["name"] == "model.onnx":
            subject["digest"]["sha256"] = sha256(folder / "model.onnx")
    write_json(folder / statement.FILE, found)
    again(folder)


def odd_statement(folder: Path) -> None:
    found = read_json(folder / statement.FILE)
    found["predicate"][statement.MEASURED]["artifact"]["files"] = 5
    write_json(folder / statement.FILE, found)


def replace_measurements(folder: Path) -> None:
    """The same, and pretend that this was measured."""
    replace_graph(folder)
    found = read_json(folder / statement.FILE)
    found["predicate"][statement.MEASURED]["artifact"]["files"]["model.onnx"] = sha256(folder / "model.onnx")
    write_json(folder / statement.FILE, found)
    again(folder)


TOUCHED = {
    "changed": (edit, "README.md: changed"),
    "missing": (lambda folder: (folder / "README.md").unlink(), "README.md: missing"),
    "extra": (lambda folder: (folder / "extra.txt").write_text("x"), "extra.txt: extra"),
    "hidden": (lambda folder: (folder / ".gitignore").write_text("x"), ".gitignore: extra"),
    "folder": (lambda folder: (folder / "more").mkdir(), "more: extra"),
    "changed-and-listed": (edit_and_list, "README.md: SHA256SUMS has"),
    "other-graph": (replace_graph, "model.onnx is not the graph that was measured"),
    "no-list": (lambda folder: (folder / verification.SUMS).unlink(), "SHA256SUMS is not there"),
    "bad-list": (lambda folder: (folder / verification.SUMS).write_text("abc  ../x\n"), "SHA256SUMS line 1"),
    "odd-statement": (odd_statement, "is not a statement of Kiln's"),
    "no-statement": (lambda folder: (folder / statement.FILE).write_text("{}"), "is not a statement of Kiln's"),
}
touched = pytest.mark.parametrize(("touch", "said"), TOUCHED.values(), ids=TOUCHED)


@touched
def test_verify_and_the_gate_name_what_was_touched(release: Path, touch, said: str):
    touch(release)
    with pytest.raises(UserError, match="is not as it was released") as refused:
        main(["verify", str(release)])
    assert said in str(refused.value)
    with pytest.raises(UserError, match="the gate is closed") as closed:
        gate.main([])
    assert said in str(closed.value)


def test_an_untouched_release_passes_wherever_it_is(release: Path, capsys: pytest.CaptureFixture[str]):
    main(["verify", str(release), "--key", PUBLIC])
    assert f"signed with {PUBLIC}" in capsys.readouterr().out
    shutil.move(release, "elsewhere")
    main(["verify", "elsewhere", "--key", PUBLIC])
    main(["verify", "elsewhere"])
    assert "--key would check by whom" in capsys.readouterr().out


def test_the_gate_opens_over_untouched_releases(release: Path):
    assert release.is_dir()
    gate.main([])


def test_whoever_changes_all_that_the_folder_says_is_caught_by_the_key_and_by_the_report(release: Path):
    replace_measurements(release)
    main(["verify", str(release)])
    with pytest.raises(UserError, match=r"model\.sig is no signature of this folder with key\.pub"):
        main(["verify", str(release), "--key", PUBLIC])
    with pytest.raises(UserError, match=r"model\.onnx is not the graph of the last report"):
        gate.main([])


def test_another_key_and_no_signature_are_refused(release: Path):
    with pytest.raises(UserError, match=r"is no signature of this folder with other\.pub"):
        main(["verify", str(release), "--key", "other.pub"])
    with pytest.raises(UserError, match="wanted an elliptic-curve public key"):
        main(["verify", str(release), "--key", "params.yaml"])
    (release / signature.FILE).unlink()
    with pytest.raises(UserError, match="is not signed"):
        main(["verify", str(release), "--key", PUBLIC])


def test_a_release_of_no_build_and_a_build_of_no_release_close_the_gate(release: Path):
    shutil.copytree(release, layout.RELEASE / "mine")
    with pytest.raises(UserError, match="mine: extra: no build of that name passed"):
        gate.main([])
    release.rename(release.with_name("mine2"))
    with pytest.raises(UserError, match=f"{BUILD}: missing: it passed"):
        gate.main([])


def test_a_gate_that_checked_no_release_says_so(release: Path, capsys: pytest.CaptureFixture[str]):
    assert release.is_dir()
    shutil.rmtree(layout.RELEASE)
    gate.main([])
    assert "artifacts/release is not here: no release was checked" in capsys.readouterr().out


def test_with_a_key_the_gate_wants_its_signature(release: Path, monkeypatch):
    monkeypatch.setenv(signature.VARIABLE, PRIVATE)
    gate.main([])
    monkeypatch.setenv(signature.VARIABLE, "other.pem")
    with pytest.raises(UserError, match=f"{BUILD} model.sig is no signature of this folder"):
        gate.main([])
    (release / signature.FILE).unlink()
    with pytest.raises(UserError, match=f"{BUILD} is not signed"):
        gate.main([])


def test_without_a_key_a_release_is_unsigned_and_says_so(release: Path, monkeypatch, capsys):
    monkeypatch.delenv(signature.VARIABLE, raising=False)
    package.main([])
    assert f"unsigned: {signature.VARIABLE} has no key" in capsys.readouterr().out
    assert not (release / signature.FILE).exists()
    assert "whoever can write here can change it" in (release / "README.md").read_text()
    main(["verify", str(release)])


def test_the_same_build_has_the_same_bytes(release: Path, monkeypatch: pytest.MonkeyPatch):
    before = (release / verification.SUMS).read_text()
    monkeypatch.setenv(signature.VARIABLE, PRIVATE)  # a path this time
    package.main([])
    assert (release / verification.SUMS).read_text() == before
    main(["verify", str(release), "--key", PUBLIC])


def test_a_key_that_is_none_is_named_by_its_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv(signature.VARIABLE, str(tmp_path / "absent.pem"))
    with pytest.raises(UserError, match=f"{signature.VARIABLE}: FileNotFoundError: .*openssl ecparam"):
        signature.fingerprint()


def test_signing_and_verifying_open_no_socket(release: Path):
    code = (
        "import sys; from pathlib import Path; from tests import guard; guard.install(); "
        "from stages.release import signature; folder = Path(sys.argv[1]); "
        "signature.sign(folder, 'key.pem'); sys.exit(signature.why_not_verified(folder, Path('key.pub')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(release)], env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_the_statement_is_in_toto_s_and_names_every_file_and_the_checkpoint(release: Path):
    found = read_json(release / statement.FILE)
    parsed = ParseDict(found, statement_pb2.Statement())
    in_toto.Statement.copy_from_pb(parsed).validate()
    own = {statement.FILE, verification.SUMS, signature.FILE}
    assert statement.subjects(found) == {p.name: sha256(p) for p in release.iterdir() if p.name not in own}
    pinned = json.loads((ROOT / "pins" / f"{workspace.MODEL}.json").read_text())
    materials = {each["name"]: each for each in found["predicate"]["buildDefinition"]["resolvedDependencies"]}
    weights = materials["model.pt"]
    assert weights["digest"]["sha256"] == pinned["files"]["model.pt"]["sha256"]
    assert weights["uri"] == f"modelscope:{pinned['hub_id']}@{pinned['revision']}#model.pt"


def test_the_bill_of_materials_is_cyclonedx_s(release: Path):
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator  # which takes a second to import

    text = (release / bom.FILE).read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    found = json.loads(text)
    assert found["metadata"]["component"]["type"] == "machine-learning-model"
    metrics = found["metadata"]["component"]["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    assert workspace.AGREEMENT in {metric["type"] for metric in metrics}
    components = {each["name"]: each for each in found["components"]}
    assert components["model.onnx"]["hashes"][0]["content"] == sha256(release / "model.onnx")
    assert components["onnxruntime"]["purl"] == "pkg:pypi/onnxruntime@1.0"


def test_the_card_says_what_a_reader_needs(release: Path):
    matter = card._front_matter(release / "README.md")
    assert (matter["license"], matter["pipeline_tag"]) == ("apache-2.0", "voice-activity-detection")
    said = (release / "README.md").read_text()
    for part in ("as params.yaml has it", workspace.AGREEMENT, "babble", "A CPU, 2 cores", "`1.15.0`", "Truth:"):
        assert part in said
    assert "&lt;b>" in said


@pytest.mark.usefixtures("release")
def test_the_card_of_openvino_s_files_names_the_library_and_how_to_compile_them():
    found = package.gather(read_json(layout.SUMMARY), BUILD, params.load(), layout.checkpoint(workspace.MODEL))
    target = found.target.model_copy(update={"runtime": "openvino_bf16"})
    said = card.render_card(dataclasses.replace(found, target=target), signed=False)
    assert "library_name: openvino\n" in said
    assert "`INFERENCE_PRECISION_HINT: f32`" in said


def test_the_licence_is_the_checkpoint_s_own_where_it_has_one(release: Path, tmp_path: Path):
    assert release
    model = params.load().models[workspace.MODEL]
    assert card.read_license(tmp_path, model) == ("Apache-2.0", "params.yaml")
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n# A model\n")
    assert card.read_license(tmp_path, model) == ("mit", "the checkpoint's README.md")
    (tmp_path / "README.md").write_text("---\nlicense: [\n---\n")
    assert card.read_license(tmp_path, model) == ("Apache-2.0", "params.yaml")
