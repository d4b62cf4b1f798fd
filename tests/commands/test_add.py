"""`kiln add`: lines come into params.yaml, nothing else of it changes, and the result is valid."""

from __future__ import annotations

import difflib
import json
import shutil
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from stages import prune
from stages.__main__ import main
from stages.commands import catalogue
from stages.core import params, pins, plan
from stages.core.errors import UserError
from stages.core.files import sha256
from stages.core.pins import Pin, PinnedFile
from stages.models import ct_transformer
from stages.models.shared.checkpoint import weightless
from stages.sources import modelscope
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


def test_a_model_is_one_entry_and_the_plan_follows():
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
        "    targets: [cpu_int8]",
    ]
    plan.check(params.load())
    assert "other_vad-cpu_int8" in YAML(typ="safe").load(Path("plan.yaml"))["plan"]["builds"]


def test_every_target_of_the_real_params():
    targets = list(params.load().targets)
    main(["add", "other_vad", "--targets", ",".join(targets)])
    added()
    after = params.load()
    assert after.models["other_vad"].targets == targets
    assert after.prune_settings("other_vad") == after.prune["fsmn_vad"].model_copy(update={"ratio_of": "prunable"})
    assert "other_vad-trt_fp16" in plan.derive(after).engine


def punctuation(folder: Path, tokens: int) -> Path:
    """A checkpoint like the punctuation miniature, without its weights, for a vocabulary of that size."""
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "zoo/ct_transformer/config.yaml", folder)
    known = json.loads((ROOT / "zoo/ct_transformer/tokens.json").read_text())
    more = [f"token {n}" for n in range(tokens - len(known))]
    (folder / "tokens.json").write_text(json.dumps([*known, *more]))
    return folder


def goal_of(name: str, checkpoint: Path) -> prune.Goal:
    """What the stage `prune` makes of the section that was added; it raises what the stage would."""
    config = ct_transformer.read_config(checkpoint)
    return prune.goal(
        ct_transformer, weightless(ct_transformer.build, config), config, params.load().prune_settings(name)
    )


ENTRY = """my_punctuation:
  family: ct_transformer
  dataset: punctuated_text
  license: MIT
  sources:
    - {source}
"""


@pytest.mark.parametrize(
    ("tokens", "of", "held"),
    [
        pytest.param(370, "all", "hold 72.8% of 114", id="small vocabulary"),
        pytest.param(40_000, "prunable", "hold 6.0% of 1,38", id="large vocabulary"),
    ],
)
def test_a_pruned_section_asks_for_what_the_model_can_give(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], tokens: int, of: str, held: str
):
    checkpoint = punctuation(tmp_path / "mine", tokens)
    Path("catalogue.yaml").write_text(ENTRY.format(source="{kind: folder, path: mine}"))
    main(["add", "my_punctuation", "--targets", "cpu_pruned"])
    said = capsys.readouterr().out
    assert f"my_punctuation: prune has ratio 0.3 of {of}: encoder_conf.linear_units {held}" in said
    found = params.load()
    assert found.prune_settings("my_punctuation") == found.prune["ct_transformer"].model_copy(update={"ratio_of": of})
    assert ("prune: {ratio_of: prunable}" in "\n".join(added())) == (of == "prunable")
    goal = goal_of("my_punctuation", checkpoint)
    assert goal.removed == pytest.approx(0.3 if of == "all" else 0.3 * goal.prunable / goal.parameters)


def test_what_pin_downloaded_tells_as_much_and_nothing_else_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    checkpoint = punctuation(tmp_path / "hub", 370)
    (checkpoint / "model.pt").write_bytes(b"weights")
    source = "{kind: modelscope, hub_id: someone/punctuation, revision: v1.0.0}"
    Path("catalogue.yaml").write_text(ENTRY.format(source=source))
    files = {p.name: PinnedFile(size=p.stat().st_size, sha256=sha256(p)) for p in checkpoint.iterdir()}
    pins.write("my_punctuation", Pin(hub_id="someone/punctuation", revision="v1.0.0", files=files))
    asked = ["add", "my_punctuation", "--targets", "cpu_pruned", "--dry-run"]
    for name in ("config.yaml", "tokens.json"):
        main(asked)
        assert "ratio 0.3 of prunable: its config.yaml is not here" in capsys.readouterr().out
        place = modelscope.place(name, files[name])
        place.parent.mkdir(parents=True)
        shutil.copy(checkpoint / name, place)
    main(asked)
    assert "ratio 0.3 of all: encoder_conf.linear_units hold 72.8%" in capsys.readouterr().out
    place.write_text("[]")
    main(asked)
    assert "ratio 0.3 of prunable: its config.yaml is not here" in capsys.readouterr().out


def test_a_model_with_nothing_to_cut_gets_no_pruned_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    punctuation(tmp_path / "mine", 370)
    Path("catalogue.yaml").write_text(ENTRY.format(source="{kind: folder, path: mine}"))
    monkeypatch.setattr(ct_transformer, "widths", lambda _: {})
    with pytest.raises(UserError, match="found no layer to cut"):
        main(["add", "my_punctuation", "--targets", "cpu_pruned"])
    assert added() == []


def test_again_adds_nothing_and_another_target_is_a_name_in_a_list(capsys: pytest.CaptureFixture[str]):
    main(["add", "other_vad", "--targets", "cpu_int8"])
    first = Path("params.yaml").read_text()
    main(["add", "other_vad", "--targets", "cpu_int8"])
    assert Path("params.yaml").read_text() == first
    assert "has other_vad on cpu_int8 already" in capsys.readouterr().out
    main(["add", "other_vad", "--targets", "cpu_int8,cpu_fp32"])
    assert Path("params.yaml").read_text() == first.replace("[cpu_int8]", "[cpu_int8, cpu_fp32]")


def test_a_dry_run_shows_the_lines_and_writes_nothing(capsys: pytest.CaptureFixture[str]):
    main(["add", "other_vad", "--targets", "cpu_fp32", "--dry-run"])
    assert added() == []
    said = capsys.readouterr().out
    assert "+    targets: [cpu_fp32]\n" in said
    assert "next: `kiln pin other_vad`" in said


@pytest.mark.parametrize(
    ("model", "targets", "said"),
    [
        pytest.param("other_vat", "cpu_int8", "has a model 'other_vat'; did you mean 'other_vad'", id="model"),
        pytest.param("other_vad", "cpu_int9", "no target 'cpu_int9'; did you mean 'cpu_int8'", id="target"),
        pytest.param("strange", "cpu_int8", "models.strange: unknown family 'strange'", id="family"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_written(model: str, targets: str, said: str):
    with pytest.raises(UserError, match=said):
        main(["add", model, "--targets", targets])
    assert added() == []


def test_a_wrong_command_line_shows_the_usage(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match="2"):
        main(["add"])
    assert "usage: kiln add" in capsys.readouterr().err
