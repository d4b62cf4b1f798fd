"""What is replaced in other libraries is still what it was when it was replaced, and is back afterwards."""

from __future__ import annotations

import inspect
import json
import logging
import os
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


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of DVC, where we are: two stages read a folder, one of them also what a third makes of a seed."""
    from dvc.repo import Repo

    monkeypatch.chdir(tmp_path)
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "one.py").write_text("1")
    (tmp_path / "seed").write_text("1")
    blocks = {
        "make": "{cmd: mkdir made && cp seed made, deps: [seed], outs: [made]}",
        "first": "{cmd: cp -r made first, deps: [code, made], outs: [first]}",
        "second": "{cmd: cp .dvc/tmp/rwlock second, deps: [code], outs: [second]}",
    }
    (tmp_path / "dvc.yaml").write_text("stages:\n" + "".join(f"  {name}: {block}\n" for name, block in blocks.items()))
    Repo.init(no_scm=True)
    return tmp_path


@pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")  # of DVC's own tries
def test_dvc_hashes_a_folder_once_until_a_stage_ran(pipeline: Path):
    from dvc.output import Output
    from dvc.repo import Repo

    hashed = []
    compute = getattr(Output, dvc.HASH)

    def counted(output: Any) -> Any:
        hashed.append(output.def_path)
        return compute(output)

    def built() -> set[str]:
        hashed.clear()
        return {stage.name for stage in Repo().reproduce()}

    with patches.replace(Output, dvc.HASH, counted), dvc.dvc_once():
        assert built() == {"make", "first", "second"}
        assert built() == set()
        assert sorted(hashed) == ["code", "first", "made", "second", "seed"]
        (pipeline / "seed").write_text("22")
        assert built() == {"make", "first"}
        assert (pipeline / "first" / "seed").read_text() == "22"
        (pipeline / "code" / "one.py").write_text("333")
        assert built() == {"first", "second"}
        (pipeline / "seed").write_text("1")
        (pipeline / "code" / "one.py").write_text("1")
        assert built() == {"make", "first", "second"}  # all restored
        (pipeline / "made" / "seed").write_text("not the seed's")
        assert built() == {"make"}  # what it reads is as it was, once that is restored
    assert Repo().status() == {}


@pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")  # of DVC's own tries
def test_dvc_notes_once_what_a_stage_uses_and_keeps_off_what_another_process_writes(pipeline: Path):
    from dvc.exceptions import ReproductionError
    from dvc.repo import Repo

    place = pipeline / ".dvc" / "tmp" / "rwlock"
    with dvc.dvc_once():
        Repo().reproduce()
        during = json.loads((pipeline / "second").read_text())
        assert ([*during["read"]], [*during["write"]]) == ([str(pipeline / "code")], [str(pipeline / "second")])
        assert json.loads(place.read_text()) == {}
        other = {"pid": os.getppid(), "cmd": "dvc of another"}
        place.write_text(json.dumps({"read": {}, "write": {str(pipeline / "code"): other}}))
        with pytest.raises(ReproductionError) as failed:
            Repo().reproduce(force=True)
    assert "is busy" in str(failed.value.__cause__)
