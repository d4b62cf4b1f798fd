"""What is replaced in other libraries is still what it was when it was replaced, and is back afterwards."""

from __future__ import annotations

import inspect
import logging
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnxruntime.quantization import onnx_quantizer
from onnxruntime.quantization.base_quantizer import BaseQuantizer
from onnxscript import rewriter
from torch.onnx._internal.exporter._registration import ONNXRegistry

from stages.core import patches
from stages.core.patches import dvc, funasr, onnxruntime, onnxscript
from stages.models.shared.checkpoint import importing_funasr


def test_onnx_runtime_s_functions_take_what_ours_take():
    loop = inspect.signature(getattr(BaseQuantizer, onnxruntime.BY_CHANNEL))
    assert list(loop.parameters)[:4] == ["self", "weight_name", "weight_qType", "channel_axis"]
    assert list(inspect.signature(getattr(onnx_quantizer, onnxruntime.WITH_SHAPES)).parameters) == ["model"]


def test_onnxscript_has_one_rule_of_several_outputs():
    rules = getattr(rewriter, onnxscript.RULES)
    assert [rule.name for rule in rules].count(onnxscript.QUADRATIC) == 1


def test_funasr_looks_up_lines_to_print_them_and_for_nothing_else(capsys: pytest.CaptureFixture[str]):
    """What is left out in its list of classes is asked for in one place, and no class is registered otherwise."""
    with importing_funasr():
        from funasr import register
    table = register.RegisterTables()
    assert "inspect.getsourcelines" in inspect.getsource(register.RegisterTables.register)
    for block in (nullcontext(), funasr.funasr_register()):
        with block:
            table.register("model_classes", "Made")(Path)
        assert table.model_classes["Made"] is Path
        table.print("model")
    lines = [line.split("|")[3] for line in capsys.readouterr().out.splitlines() if "Made" in line]
    assert [int(line.rpartition(":")[2]) > 0 for line in lines] == [True, False]
    assert getattr(register, funasr.INSPECT) is inspect


def test_torch_s_table_of_operators_is_made_once_for_each_opset():
    whole = ONNXRegistry.from_torchlib(opset_version=18).functions.keys()
    with onnxscript.exporter():
        first, again, other = (ONNXRegistry().from_torchlib(opset_version=opset) for opset in (18, 18, 20))
    assert first is again is not other
    assert first.functions.keys() == whole
    assert (first.opset_version, other.opset_version) == (18, 20)


@pytest.mark.parametrize("end", [pytest.param(None, id="well"), pytest.param(ValueError, id="badly")])
def test_all_is_as_before_however_the_block_ends(end: type[Exception] | None):
    places: list[tuple[Any, str]] = [
        (BaseQuantizer, onnxruntime.BY_CHANNEL),
        (onnx_quantizer, onnxruntime.WITH_SHAPES),
        (rewriter, onnxscript.RULES),
        (ONNXRegistry, onnxscript.TORCHLIB),
    ]
    before = [getattr(owner, name) for owner, name in places]
    level = logging.getLogger().level
    try:
        with onnxruntime.quantizers(), onnxruntime.weights_scaled_by(lambda w: np.ones(w.shape[1], np.float32)):
            with onnxscript.exporter():
                assert all(getattr(owner, name) is not old for (owner, name), old in zip(places, before, strict=True))
            if end is not None:
                raise end
    except ValueError:
        pass
    assert [getattr(owner, name) for owner, name in places] == before
    assert logging.getLogger().level == level


def test_dvc_reads_params_once_and_again_when_they_changed(tmp_path: Path):
    from dvc.dependency import param
    from dvc.fs import localfs

    place, reads = tmp_path / "params.yaml", []
    place.write_text("a: 1\n")
    load = getattr(param, dvc.LOAD)

    def counted(path: str, fs: object) -> object:
        reads.append(path)
        return load(path, fs)

    with patches.replace(param, dvc.LOAD, counted), dvc.dvc_params():
        found = [param.read_param_file(localfs, str(place), ["a"], flatten=True) for _ in range(3)]
        place.write_text("a: 22\n")
        found.append(param.read_param_file(localfs, str(place), ["a"], flatten=True))
    assert found == [{"a": 1}] * 3 + [{"a": 22}]
    assert len(reads) == 2
    assert getattr(param, dvc.LOAD) is load


@pytest.mark.parametrize("key", ["a.b", "a.list", "a.list.1", "a.missing", "a.b.c", "*.b", "none"])
def test_dvc_finds_in_params_what_it_finds_without_us(tmp_path: Path, key: str):
    from dvc.dependency import param
    from dvc.fs import localfs

    place = tmp_path / "params.yaml"
    place.write_text("a: {b: 1, list: [2, 3]}\nnone: null\n")
    wanted = param.read_param_file(localfs, str(place), [key], flatten=True)
    with dvc.dvc_params():
        assert param.read_param_file(localfs, str(place), [key], flatten=True) == wanted


def test_dvc_s_work_for_a_key_does_not_grow_with_the_file(tmp_path: Path):
    from dvc.dependency import param
    from dvc.fs import localfs

    place = tmp_path / "params.yaml"
    place.write_text("models:\n" + "".join(f"  m{number}: {{family: f}}\n" for number in range(50)))
    asked = []

    class Noted(dict[str, object]):
        def items(self) -> object:  # type: ignore[override]
            asked.append(self)
            return super().items()

    loaded = Noted(models=Noted({f"m{number}": Noted(family="f") for number in range(50)}))
    with patches.replace(param, dvc.LOAD, lambda *_: loaded), dvc.dvc_params():
        assert param.read_param_file(localfs, str(place), ["models.m7.family"], flatten=True) == {
            "models.m7.family": "f"
        }
    assert asked == []


@pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")  # of DVC's own tries
def test_dvc_s_lock_files_are_to_the_byte_what_dvc_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from dvc.repo import Repo

    monkeypatch.chdir(tmp_path)
    outs = {"a": "a", "b": "b", "m@x": "m_x", "yes": "yes", "ab": "ab"}  # by stage
    blocks = [f"  '{name}': {{cmd: echo, outs: [{out}]}}\n" for name, out in outs.items() if "@" not in name]
    keyed = "  m: {foreach: [x], do: {cmd: 'echo 1e5', outs: ['m_${item}']}}\n"
    (tmp_path / "dvc.yaml").write_text("".join(["stages:\n", *blocks, keyed]))
    repo = Repo.init(no_scm=True)

    def locks() -> list[str]:
        """The lock file after each stage of two builds, of which the second changes the first stages."""
        texts = []
        for number in range(2):
            for name, out in list(outs.items())[: 5 - 2 * number]:
                (tmp_path / out).unlink(missing_ok=True)
                (tmp_path / out).write_text(f"{name} {number}")
                (stage,) = repo.stage.collect(name)
                with repo.lock:
                    stage.save()
                    stage.dump(update_pipeline=False)
                texts.append((tmp_path / "dvc.lock").read_text())
        (tmp_path / "dvc.lock").unlink()
        return texts

    wanted = locks()
    with dvc.dvc_locks():
        assert locks() == wanted
    assert len(set(wanted)) == 8


@pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")  # of DVC's own tries
def test_dvc_reads_a_dvc_yaml_once_for_all_that_it_is_told_to_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from dvc import dvcfile
    from dvc.repo import Repo

    monkeypatch.chdir(tmp_path)
    place, loads = tmp_path / "dvc.yaml", []
    place.write_text("stages:\n  m: {foreach: [x, y, z], do: {cmd: 'echo ${item}'}}\n")
    repo = Repo.init(no_scm=True)
    load = getattr(dvcfile, dvc.LOAD_FILE)

    def counted(repo: object, path: str) -> object:
        loads.append(path)
        return load(repo, path)

    with patches.replace(dvcfile, dvc.LOAD_FILE, counted), dvc.dvc_files():
        assert [repo.stage.collect(f"m@{key}")[0].cmd for key in "xyz"] == ["echo x", "echo y", "echo z"]
        assert len(loads) == 1
        place.write_text("stages:\n  m: {foreach: [x], do: {cmd: 'echo again'}}\n")
        assert repo.stage.collect("m@x")[0].cmd == "echo again"
    assert len(loads) == 2
