"""`python -m stages add`: lines come into params.yaml, nothing else of it changes, and the result is valid."""

from __future__ import annotations

import difflib
from pathlib import Path

import pytest

from stages.__main__ import main
from stages.commands import catalogue
from stages.core import params
from stages.core.errors import UserError
from tests.workspace import ROOT

TEXT = (ROOT / "params.yaml").read_text()
CATALOGUE = """# Known.

other_vad:  # bigger
  family: fsmn_vad
  dataset: vad_mixtures
  license: MIT  # the card's
  sources:
    - kind: modelscope
      hub_id: someone/other
      revision: v1.0.0

strange:
  family: strange
  dataset: vad_mixtures
  license: MIT
  sources:
    - {kind: folder, path: zoo/strange}
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A repository with the real params.yaml and a catalogue of two."""
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(TEXT)
    Path("catalogue.yaml").write_text(CATALOGUE)
    monkeypatch.setattr(catalogue, "CATALOGUE", Path("catalogue.yaml"))


def added() -> list[str]:
    """The new lines of params.yaml; anything but new lines fails."""
    lines = list(difflib.ndiff(TEXT.splitlines(), Path("params.yaml").read_text().splitlines()))
    assert not [line for line in lines if line[0] in "-?"]
    return [line[2:] for line in lines if line[0] == "+"]


def test_a_dense_int8_build():
    main(["add", "other_vad", "--targets", "cpu_int8"])
    assert added() == [
        "  other_vad:  # bigger",
        "    family: fsmn_vad",
        "    dataset: vad_mixtures",
        "    license: MIT  # the card's",
        "    sources:",
        "      - kind: modelscope",
        "        hub_id: someone/other",
        "        revision: v1.0.0",
        "  other_vad-dense: {model: other_vad, variant: dense}",
        "    other_vad-dense-int8: {model: other_vad, variant: dense, graph: optimize, recipe: int8, dataset: vad_mixtures}",  # noqa: E501
        "  other_vad-cpu_int8: {model: other_vad, target: cpu_int8, artifact: other_vad/dense/int8}",
    ]


def test_every_target_of_the_real_params():
    targets = params.load().targets
    main(["add", "other_vad", "--targets", ",".join(targets)])
    added()
    after = params.load()
    assert {f"other_vad-{target}" for target in targets} <= set(after.builds)
    assert after.prune["other_vad"] == after.prune["fsmn_vad"]
    assert "other_vad-trt_fp16" in after.engine.builds


def test_a_pruned_section_is_a_relative_s_on_the_model_s_own_data():
    text = TEXT.replace("datasets:\n", "datasets:\n  mine: {kind: manifest, path: my/audio}\n")
    Path("params.yaml").write_text(text)
    Path("catalogue.yaml").write_text(CATALOGUE.replace("dataset: vad_mixtures", "dataset: mine"))
    main(["add", "other_vad", "--targets", "cpu_pruned"])
    prune = params.load().prune
    assert prune["other_vad"] == prune["fsmn_vad"].model_copy(update={"dataset": "mine"})


def test_again_adds_nothing_and_more_targets_only_theirs(capsys: pytest.CaptureFixture[str]):
    main(["add", "other_vad", "--targets", "cpu_int8"])
    first = Path("params.yaml").read_text()
    main(["add", "other_vad", "--targets", "cpu_int8"])
    assert Path("params.yaml").read_text() == first
    assert "has other_vad on cpu_int8 already" in capsys.readouterr().out
    main(["add", "other_vad", "--targets", "cpu_int8,cpu_fp32"])
    build = "  other_vad-cpu_fp32: {model: other_vad, target: cpu_fp32, artifact: other_vad/dense/export}"
    assert set(Path("params.yaml").read_text().splitlines()) - set(first.splitlines()) == {build}


def test_a_dry_run_shows_the_lines_and_writes_nothing(capsys: pytest.CaptureFixture[str]):
    main(["add", "other_vad", "--targets", "cpu_fp32", "--dry-run"])
    assert added() == []
    said = capsys.readouterr().out
    assert "+  other_vad-dense: {model: other_vad, variant: dense}\n" in said
    assert "next: `python -m stages pin other_vad`" in said


@pytest.mark.parametrize(
    ("model", "targets", "said"),
    [
        pytest.param("other_vat", "cpu_int8", "has a model 'other_vat'; did you mean 'other_vad'", id="model"),
        pytest.param("other_vad", "cpu_int9", "no target 'cpu_int9'; did you mean 'cpu_int8'", id="target"),
        pytest.param("strange", "cpu_int8", "has no limits for the family 'strange'", id="no-limits"),
        pytest.param("strange", "cpu_pruned", r"write prune\.strange in params\.yaml", id="no-prune-section"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_written(model: str, targets: str, said: str):
    with pytest.raises(UserError, match=said):
        main(["add", model, "--targets", targets])
    assert added() == []


def test_a_table_in_braces_is_refused():
    start, end = TEXT.index("variants:\n"), TEXT.index("\nprune:")
    lines = [line.strip() for line in TEXT[start:end].splitlines()[1:] if line.strip()]
    Path("params.yaml").write_text(f"{TEXT[:start]}variants: {{{', '.join(lines)}}}\n{TEXT[end:]}")
    with pytest.raises(UserError, match="variants must be a table with at least one entry, one on each line"):
        main(["add", "other_vad", "--targets", "cpu_int8"])


def test_a_wrong_command_line_shows_the_usage(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match="2"):
        main(["add", "other_vad"])
    assert "usage: python -m stages add" in capsys.readouterr().err
