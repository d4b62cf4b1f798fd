"""Every model of the catalogue can be added to the repository's own params.yaml."""

from __future__ import annotations

from pathlib import Path

import pytest

from stages.__main__ import main
from stages.commands import catalogue
from stages.core import params, plan
from stages.core.errors import UserError
from stages.core.params.origins import ModelScopeSource
from tests.workspace import ROOT


@pytest.mark.parametrize("name", catalogue.models())
def test_a_model_can_be_added_as_it_is(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text((ROOT / "params.yaml").read_text())
    main(["add", name, "--targets", "cpu_fp32,cpu_int8"])
    assert {f"{name}-cpu_fp32", f"{name}-cpu_int8"} <= set(plan.derive(params.load()).builds)


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("paraformer-zh", "seaco_paraformer_large"),  # FunASR's
        ("cam++", "campplus_zh_common"),
        ("SenseVoiceSmall", "sensevoice_small"),
        ("FunAudioLLM/SenseVoiceSmall", "sensevoice_small"),  # another hub's
        ("iic/punc_ct-transformer_cn-en-common-vocab471067-large@v2.0.4", "ct_punc"),
    ],
)
def test_the_names_that_others_have_lead_to_the_catalogue_s(name: str, own: str):
    with pytest.raises(UserError, match=f"the catalogue has it as '{own}'"):
        catalogue.find(name, params.load(ROOT / "params.yaml"))


def test_every_model_is_on_the_hub_at_a_revision_of_its_own():
    sources = [source for model in catalogue.models().values() for source in model.sources]
    ids = {source.hub_id for source in sources if isinstance(source, ModelScopeSource)}
    assert len(ids) == len(catalogue.models())
