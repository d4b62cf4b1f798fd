"""config.yaml says what FunASR reads in it, looks nothing up, and a malformed one is one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from stages.core.errors import UserError
from stages.models.shared import yaml_config

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "text",
    [
        "norm_eps: 1e-05\nblocks: 1e9\nhex: 0x10\nold: 010\ntext: '1e-05'\n",
        "switch: yes\nnull_value: ~\nempty:\ndate: 2020-01-01\ntime: 12:30:00\nmissing: ???\n",
        "list: [1, -1, .5, .nan, null]\nmapping: {a: {b: [c]}}\nmarks: [、, 。]\n",
        "\ufeffa: 1\r\nb: |\n  two\n  lines\r\n",
        "model_conf: {sos: 1}\ndataset_conf:\n  sos: ${model_conf.sos}\n",
        "",
    ],
    ids=["numbers", "words", "nested", "windows", "reference", "empty"],
)
def test_reads_what_funasr_reads_and_writes_what_it_reads_again(tmp_path: Path, text: str):
    path = tmp_path / "config.yaml"
    path.write_bytes(text.encode())
    expected: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    found = yaml_config.read(path)
    assert repr(found) == repr(expected)
    yaml_config.write(found, path)
    assert repr(OmegaConf.to_container(OmegaConf.load(path), resolve=False)) == repr(expected)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param(None, "cannot be read: FileNotFoundError", id="missing"),
        pytest.param("a: ${oc.env:HOME}", r"line 1: found '\$\{oc\.env:HOME\}', wanted a plain", id="environment"),
        pytest.param("a: 1\nb: x${a}y", "line 2: .*nothing is looked up", id="reference"),
        pytest.param("a: ${", "line 1: .*nothing is looked up", id="half-a-reference"),
        pytest.param("a: ${b}${b}", "line 1: .*nothing is looked up", id="two-references"),
        pytest.param("${a}: 1", r"found the key '\$\{a\}', wanted names only", id="reference-as-key"),
        pytest.param(BOMB, r"line 2: found the alias \*a", id="alias-bomb"),
        pytest.param("a: &a [*a]", r"found the alias \*a", id="alias-of-itself"),
        pytest.param("a: " + "[" * 100_000, "over 20 mappings and lists within each other", id="deep"),
        pytest.param("a: {" * 30 + "}" * 30, "over 20 mappings", id="deep-mappings"),
        pytest.param("a: 1\nb: 2\na: 3\n", "line 3 cannot be read: found duplicate key a", id="twice"),
        pytest.param(b"a: \xff\xfe", "cannot be read: UnicodeDecodeError", id="not-utf8"),
        pytest.param("a: 1".encode("utf-16"), "cannot be read: UnicodeDecodeError", id="utf16"),
        pytest.param("a: \x00\x1b[31m", "cannot be read: ReaderError", id="control"),
        pytest.param("a: " + "1" * 5000, "cannot be read: ValueError", id="digits"),
        pytest.param("# " + "x" * 300_000, "over 262144 bytes", id="large"),
        pytest.param("- a\n- b\n", "found list, wanted a mapping", id="list"),
        pytest.param("1: a\n", "found the key 1, wanted names only", id="number-as-key"),
        pytest.param("a: [1, 2", "line 2 cannot be read: did not find expected", id="cut"),
        pytest.param("a: 1\n---\nb: 2\n", "line 2 cannot be read: but found another document", id="documents"),
        pytest.param("a: !!python/object/apply:os.system ['true']", "could not determine a constructor", id="code"),
        pytest.param("a: !!set {x}", "cannot be read: UnsupportedValueType", id="set"),
        pytest.param("a: !!float x", "cannot be read: ValueError", id="no-float"),
    ],
)
def test_what_is_malformed_is_one_line(tmp_path: Path, content: str | bytes | None, said: str):
    path = tmp_path / "config.yaml"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=said) as e:
        yaml_config.read(path)
    assert str(e.value).startswith(str(path))
    assert "\n" not in str(e.value)
    assert len(str(e.value)) < 400


def test_the_environment_is_never_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("KILN_SECRET", "hunter2")
    (tmp_path / "config.yaml").write_text("a: ${oc.env:KILN_SECRET}")
    with pytest.raises(UserError) as e:
        yaml_config.read(tmp_path / "config.yaml")
    assert "hunter2" not in str(e.value)
