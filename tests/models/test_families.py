"""Every family is what `stages.models` has it for, and what that is, is known without importing one."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stages import models
from stages.commands import catalogue
from stages.core.errors import UserError
from stages.models.protocols import (
    Described,
    Detector,
    Family,
    Prunable,
    Punctuator,
    Recognizer,
    Searchable,
    StreamingRecognizer,
)
from stages.models.shared import checkpoint
from tests.workspace import ROOT

PROTOCOLS: dict[type, models.Kind[Any]] = {
    Family: models.FAMILIES,
    Prunable: models.PRUNABLE,
    Described: models.DESCRIBED,
    Detector: models.DETECTORS,
    Recognizer: models.RECOGNIZERS,
    Searchable: models.SEARCHABLE,
    StreamingRecognizer: models.STREAMING_RECOGNIZERS,
    Punctuator: models.PUNCTUATORS,
}
SHARED = "shared"


def names_of(function: Callable[..., Any]) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name != "self"]


def violations(protocol: type, module: object) -> list[str]:
    """What a module lacks of a protocol, or has with other arguments; more arguments need a default."""
    found = []
    for name, member in inspect.getmembers(protocol):
        if name.startswith("_"):
            continue
        own = getattr(module, name, None)
        if own is None or callable(own) != inspect.isfunction(member):
            found.append(f"{name}: found {own!r}")
        elif inspect.isfunction(member):
            parameters, wanted = inspect.signature(own).parameters, names_of(member)
            more = [
                key for key in list(parameters)[len(wanted) :] if parameters[key].default is inspect.Parameter.empty
            ]
            if names_of(own)[: len(wanted)] != wanted or more:
                found.append(f"{name}: found {names_of(own)}, wanted {wanted}")
    return found


@pytest.mark.parametrize(
    ("protocol", "name"), [(protocol, name) for protocol, kind in PROTOCOLS.items() for name in kind], ids=str
)
def test_a_family_has_what_its_tables_promise(protocol: type, name: str):
    assert violations(protocol, PROTOCOLS[protocol].load(name)) == []


def test_what_a_family_lacks_or_has_otherwise_is_found(monkeypatch: pytest.MonkeyPatch):
    family = models.load("fsmn_vad")
    monkeypatch.delattr(family, "HEADLINE")
    monkeypatch.setattr(family, "graph_set", lambda model, opset: (model, opset))
    assert violations(Family, family) == [
        "HEADLINE: found None",
        "graph_set: found ['model', 'opset'], wanted ['model']",
    ]


def test_every_folder_is_a_family_and_every_family_a_folder():
    folders = {path.parent.name for path in (ROOT / "stages" / "models").glob("*/__init__.py")}
    assert folders - {SHARED} == set(models.FAMILIES)
    for kind in PROTOCOLS.values():
        assert set(kind) <= folders


def test_a_model_of_funasr_s_is_of_one_family():
    takers = Counter(name for family in models.FAMILIES for name in models.load(family).SCHEMAS)
    assert [name for name, count in takers.items() if count > 1] == []
    assert "SeacoParaformer" in models.load("seaco_paraformer").SCHEMAS


def test_a_family_without_an_ability_is_refused_with_those_that_have_it():
    wanted = "found the family fsmn_vad, wanted one of paraformer, seaco_paraformer, sensevoice"
    with pytest.raises(UserError, match=wanted):
        models.RECOGNIZERS.load("fsmn_vad")


def test_params_are_checked_without_importing_a_family():
    code = (
        "import sys; from stages.core import params; params.load(); "
        "heavy = {'torch', 'funasr', 'jiwer', 'onnxruntime'} & set(sys.modules); "
        "print(sorted(heavy), sorted(m for m in sys.modules if m.startswith('stages.models.')))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[] ['stages.models.accuracy', 'stages.models.protocols']"


def test_what_is_refused_is_funasr_s_and_taken_by_no_family_and_what_does_the_same_is_in_the_catalogue():
    with checkpoint.importing_funasr():
        import funasr.models.contextual_paraformer.model
        import funasr.models.e_paraformer.model
        import funasr.models.paraformer_v2_community.model  # noqa: F401
        from funasr.register import tables

    for model, reason in models.REFUSED.items():
        assert model in tables.model_classes
        assert models.find(model) is None
        assert reason.rpartition("use ")[2] in catalogue.models()


@pytest.mark.parametrize("model", models.REFUSED)
def test_a_checkpoint_of_a_refused_model_is_told_what_to_use(model: str, tmp_path: Path):
    (tmp_path / "config.yaml").write_text(f"model: {model}\n")
    with pytest.raises(UserError, match=rf"config\.yaml model: found {model}, which cannot be built: .* use "):
        models.load("paraformer").load(tmp_path)
