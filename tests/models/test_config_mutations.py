"""Every key of every config, set wrong in many ways: it loads, or one line says file and key, and nothing else."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.mutations.settings import REMOVED, change, paths
from stages import models
from stages.core.errors import UserError
from stages.models.shared import checkpoint, pieces, schema, yaml_config
from tests.conftest import CONFIG
from tests.models import funasr_templates
from tests.models.paraformers import SEACO
from zoo import replicas

ROOT = Path(__file__).parents[2]
WRONG: dict[str, Any] = {
    "removed": REMOVED,
    "null": None,
    "text": "wrong",
    "negative": -3,
    "zero": 0,
    "three": 3,
    "fraction": 0.37,
    "huge": 10**9,
    "enormous": 1 << 20_000,
    "nan": math.nan,
    "inf": math.inf,
    "true": True,
    "list": [1, "a"],
    "mapping": {"a": 1},
    "empty-mapping": {},
}
LAYERS = ("num_blocks", "att_layer_num", "tp_blocks", "depth", "prenet_depth", "conv_pos_depth")
OF_UNKNOWN = ("removed", "mapping", "nan")  # keys that the family has no use for may hold anything
LONGEST = 700  # characters of a message


def cases() -> dict[str, tuple[str, dict[str, Any]]]:
    """Family and configuration: of the miniatures, and of the tests' networks for what no miniature has."""
    miniatures = {path.parent.name: yaml_config.read(path) for path in sorted((ROOT / "zoo").glob("*/config.yaml"))}
    found = {name: (name.removesuffix("_realtime"), shallow(config)) for name, config in miniatures.items()}
    return found | {"fsmn_vad": ("fsmn_vad", CONFIG), "seaco_paraformer": ("seaco_paraformer", SEACO)}


def shallow(config: Any) -> Any:
    """A configuration of one layer of each kind, whose network is built sooner."""
    if not isinstance(config, dict):
        return config
    return {key: 1 if key in LAYERS else shallow(value) for key, value in config.items()}


def make(folder: Path, family: str, config: dict[str, Any], tokens: int) -> Any:
    """Write the files that a checkpoint of the family has beside its weights; return the family's module."""
    listed = [f"t{i}" for i in range(tokens - 1)] + ["<unk>"]
    (folder / "tokens.json").write_text(json.dumps(listed), encoding="utf-8")
    if family == "sensevoice":
        (folder / pieces.FILE).write_bytes(replicas.sentencepiece_model(listed))
    front = config.get("frontend_conf", {})
    numbers = " ".join(["0.5"] * front.get("n_mels", 80) * front.get("lfr_m", 1))
    parts = (f"<{part}>\n<LearnRateCoef> 0 [ {numbers} ]\n" for part in ("AddShift", "Rescale"))
    (folder / "am.mvn").write_text("".join(parts))
    write(folder, config)
    return models.load(family)


class _Dumper(yaml.CSafeDumper):  # type: ignore[misc]  # the library has no types
    """Writes whole numbers of any length."""


def _whole(dumper: yaml.CSafeDumper, value: int) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:int", str(value) if abs(value) < 1 << 64 else hex(value))


_Dumper.add_representer(int, _whole)


def write(folder: Path, config: dict[str, Any]) -> None:
    text = yaml.dump(config, Dumper=_Dumper, allow_unicode=True)
    (folder / "config.yaml").write_text(text, encoding="utf-8")


def outcome(module: Any, folder: Path) -> str:
    """`loads`, or what a UserError says. The network is built without memory."""
    try:
        checkpoint.described(module.build, module.read_config(folder), folder)
    except UserError as e:
        return str(e)
    return "loads"


def known(path: tuple[Any, ...], unknown: list[str]) -> bool:
    name = ".".join(map(str, path))
    return not any(name == key or name.startswith(f"{key}.") for key in unknown)


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_value_is_read_as_it_was_written(tmp_path: Path, kind: str):
    wrong = change({"outer": {"inner": 1, "other": "a"}}, ("outer", "inner"), WRONG[kind])
    write(tmp_path, wrong)
    found = yaml_config.read(tmp_path / "config.yaml")
    assert found == wrong or repr(found) == repr(wrong)  # NaN is no equal of its own


@pytest.mark.parametrize("name", cases())
def test_a_wrong_value_is_one_line_with_file_and_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    family, config = cases()[name]
    module = make(tmp_path, family, config, tokens=20)
    assert outcome(module, tmp_path) == "loads"
    unknown = schema.unknown(checkpoint.read_config(tmp_path, family, module.SCHEMAS)[1])
    tried: Counter[str] = Counter()
    for path in paths(config):
        for kind in WRONG if known(path, unknown) else OF_UNKNOWN:
            wrong = change(config, path, WRONG[kind])
            monkeypatch.setattr(yaml_config, "read", lambda _, wrong=wrong: wrong)  # as the test above reads each kind
            said = outcome(module, tmp_path)
            tried["loads" if said == "loads" else "refused"] += 1
            if said != "loads":
                where = f"{'.'.join(map(str, path))} {kind}: {said}"
                assert known(path, unknown), where
                assert said.startswith(str(tmp_path)), where
                assert "\n" not in said, where
                assert len(said) < LONGEST, where
                assert "FunASR cannot build" not in said, where
                keys = [step for step in path if isinstance(step, str)]
                assert any(key in said for key in keys) or "am.mvn" in said, where
    print(f"{name}: {tried['refused']} refused, {tried['loads']} load")
    assert tried["refused"] > tried["loads"] / 2


@pytest.mark.parametrize("name", funasr_templates.TEMPLATES)
def test_funasrs_own_examples_load_at_full_size(tmp_path: Path, name: str):
    family, config = funasr_templates.TEMPLATES[name]
    assert outcome(make(tmp_path, family, config, tokens=8404), tmp_path) == "loads"


def test_keys_that_only_training_uses_are_kept_and_named(tmp_path: Path):
    family, config = funasr_templates.TEMPLATES["paraformer"]
    module = make(tmp_path, family, config, tokens=8404)
    read, typed = checkpoint.read_config(tmp_path, family, module.SCHEMAS)
    assert read == config
    assert set(schema.unknown(typed)) == {*funasr_templates.TRAINING, "input_size"}


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        pytest.param(
            "paraformer",
            {"encoder_conf.attention_heads": 5},
            r"config\.yaml encoder_conf\.attention_heads: found 5, wanted a divisor of output_size 48",
            id="heads",
        ),
        pytest.param(
            "paraformer", {"decoder_conf.attention_heads": 5}, "divisor of encoder_conf.output_size 48", id="d"
        ),
        pytest.param(
            "paraformer", {"encoder_conf.num_blocks": 10**9}, "found 1000000000, wanted less than", id="blocks"
        ),
        pytest.param(
            "paraformer", {"encoder_conf.num_blocks": 1e9}, "found 1000000000.0, wanted a valid int", id="float"
        ),
        pytest.param("paraformer", {"frontend_conf.fs": 8000}, "frontend_conf.fs: found 8000, wanted 16000", id="rate"),
        pytest.param(
            "fsmn_vad", {"frontend_conf.fs": 8000}, "frontend_conf.fs: found 8000, wanted 16000", id="rate-vad"
        ),
        pytest.param(
            "fsmn_vad", {"model_conf.sample_rate": 8000}, "sample_rate: found 8000, wanted 16000", id="rate-2"
        ),
        pytest.param(
            "paraformer", {"frontend_conf.n_mels": 40}, "am.mvn: found 560 numbers in .*wanted 280", id="mels"
        ),
        pytest.param(
            "fsmn_vad", {"frontend_conf.n_mels": 40}, "input_dim: found 400, wanted .* lfr_m, 200", id="mels-2"
        ),
        pytest.param(
            "paraformer", {"vocab_size": 21}, "found 20 tokens, the vocab_size of config.yaml is 21", id="vocab"
        ),
        pytest.param(
            "paraformer",
            {"encoder_conf.sanm_shift": 0},
            "encoder_conf.sanm_shift: found a key that FunASR's class does not take; did you mean 'sanm_shfit'",
            id="spelling",
        ),
        pytest.param(
            "emotion2vec", {"model_conf.num_heads": 3}, "num_heads: found 3, wanted a divisor of", id="heads-e"
        ),
        pytest.param("emotion2vec", {"scope_map": ["a."]}, "scope_map: found .*wanted pairs of prefixes", id="scope"),
        pytest.param(
            "emotion2vec", {"excludes": ["proj"]}, "excludes: found .*would leave those weights random", id="ex"
        ),
        pytest.param(
            "ct_transformer", {"model_conf.punc_weight": [1.0]}, "one number for each of the 6 marks", id="marks"
        ),
    ],
)
def test_what_does_not_fit_together_is_named(tmp_path: Path, name: str, changes: dict[str, Any], said: str):
    family, config = cases()[name]
    module = make(tmp_path, family, config, tokens=20)
    for path, value in changes.items():
        config = change(config, tuple(path.split(".")), value)
    write(tmp_path, config)
    assert re.search(said, outcome(module, tmp_path))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param(lambda _: None, "am.mvn cannot be read", id="missing"),
        pytest.param(
            lambda text: text.replace(" 0.5 ]", " ]"), "found 559 numbers in <AddShift>, wanted 560", id="short"
        ),
        pytest.param(lambda text: text.replace("0.5", "nan", 1), "found 'nan' at place 0 of <AddShift>", id="nan"),
        pytest.param(lambda text: text.replace("0.5 ]", "1e39 ]"), "found '1e39' at place 559", id="beyond-fp32"),
        pytest.param(lambda text: text.replace("0.5", "x", 7), r"found 'x' at place 0 .*\(7 are not\)", id="text"),
        pytest.param(lambda text: text.partition("<Rescale>")[0], "found no <Rescale>", id="cut"),
        pytest.param(lambda _: "", "found no <AddShift>", id="empty"),
    ],
)
@pytest.mark.parametrize("name", ["paraformer", "paraformer_streaming"])
def test_an_am_mvn_that_is_not_whole_is_named(tmp_path: Path, name: str, change, said: str):
    module = make(tmp_path, *cases()[name], tokens=20)
    path = tmp_path / "am.mvn"
    text = change(path.read_text())
    path.unlink()
    if text is not None:
        path.write_text(text)
    found = outcome(module, tmp_path)
    assert re.search(said, found)
    assert "\n" not in found
