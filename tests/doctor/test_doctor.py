"""The command: a table or JSON of everything, status 1 only where something blocks a build, and nothing is changed."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from stages.__main__ import main
from stages.core.errors import UserError, entrypoint
from tests.doctor.conftest import Plant
from tests.hub import Hub

pytestmark = pytest.mark.usefixtures("repository")


@pytest.fixture(autouse=True)
def _all_answer(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PIP_INDEX_URL", f"{hub.url}/simple")


def test_what_is_only_a_warning_does_not_block(capsys: pytest.CaptureFixture[str]):
    main(["doctor", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert {finding["level"] for finding in found} == {"ok", "warning"}
    assert [list(finding) for finding in found] == [["check", "found", "level", "wanted", "consequence", "fix"]] * len(
        found
    )
    checks = {finding["check"] for finding in found}
    assert checks > {"python", "torch", "onnxruntime", "modelscope", "opset", "disk", "memory", "cpu", "hub", "remote"}


def test_what_blocks_a_build_is_in_the_table_and_the_status_is_1(
    plant: Plant, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    plant("torch.py", "raise OSError('libcudart.so.13: no such file')")
    monkeypatch.setattr(sys, "argv", ["kiln", "doctor"])
    with pytest.raises(SystemExit) as stopped:
        entrypoint(main)
    assert re.fullmatch(r"error: doctor: 1 of \d+ findings block a build", str(stopped.value.code))
    said = capsys.readouterr().out
    assert said.startswith("python: 3.")
    [row] = [line for line in said.splitlines() if line.startswith("torch ")]
    assert re.match(r"torch +blocks +OSError: .* an import +no checkpoint", row)


def test_one_model_is_looked_at_alone(capsys: pytest.CaptureFixture[str]):
    Path("zoo/ct_transformer/config.yaml").write_text("model: 3")
    main(["doctor", "paraformer", "--json"])
    assert "ct_transformer" not in capsys.readouterr().out
    with pytest.raises(UserError, match="1 of "):
        main(["doctor", "ct_transformer"])


def test_a_model_that_is_unknown():
    with pytest.raises(UserError, match=r"params\.yaml has no model 'parafomer'; did you mean 'paraformer'"):
        main(["doctor", "parafomer"])


def test_nothing_is_changed(capsys: pytest.CaptureFixture[str]):
    Path("dvc.lock").write_text("torn")
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    main(["doctor", "--json"])
    assert "dvc.lock: torn by a kill" in capsys.readouterr().out
    after = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    assert {path for path in after if before.get(path) != after[path] and ".dvc/tmp" not in str(path)} == set()
    assert set(before) <= set(after)


def test_an_address_with_a_password_is_not_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", "http://user:s3cret@127.0.0.1:9")
    for arguments in ([], ["--json"]):
        main(["doctor", *arguments])
        said = capsys.readouterr().out
        assert "s3cret" not in said
        assert "127.0.0.1:9" in said
