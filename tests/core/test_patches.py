"""What is replaced in other libraries is still what it was when it was replaced, and is back afterwards."""

from __future__ import annotations

import inspect
import logging
from collections import OrderedDict
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from onnxruntime.quantization import onnx_quantizer
from onnxruntime.quantization.base_quantizer import BaseQuantizer
from onnxscript import rewriter

from stages.core import patches


def test_onnx_runtime_s_functions_take_what_ours_take():
    loop = inspect.signature(getattr(BaseQuantizer, patches.BY_CHANNEL))
    assert list(loop.parameters)[:4] == ["self", "weight_name", "weight_qType", "channel_axis"]
    assert list(inspect.signature(getattr(onnx_quantizer, patches.WITH_SHAPES)).parameters) == ["model"]


def test_onnxscript_has_one_rule_of_several_outputs():
    rules = getattr(rewriter, patches.RULES)
    assert [rule.name for rule in rules].count(patches.QUADRATIC) == 1


@pytest.mark.parametrize("end", [pytest.param(None, id="well"), pytest.param(ValueError, id="badly")])
def test_all_is_as_before_however_the_block_ends(end: type[Exception] | None):
    places = [(BaseQuantizer, patches.BY_CHANNEL), (onnx_quantizer, patches.WITH_SHAPES), (rewriter, patches.RULES)]
    before = [getattr(owner, name) for owner, name in places]
    level = logging.getLogger().level
    try:
        with patches.quantizers(), patches.weights_scaled_by(lambda w: np.ones(w.shape[1], np.float32)):
            with patches.exporter():
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
    load = getattr(param, patches.LOAD)

    def counted(path: str, fs: object) -> object:
        reads.append(path)
        return load(path, fs)

    with patches._replace(param, patches.LOAD, counted), patches.dvc_params():
        found = [param.read_param_file(localfs, str(place), ["a"], flatten=True) for _ in range(3)]
        place.write_text("a: 22\n")
        found.append(param.read_param_file(localfs, str(place), ["a"], flatten=True))
    assert found == [{"a": 1}] * 3 + [{"a": 22}]
    assert len(reads) == 2
    assert getattr(param, patches.LOAD) is load


def test_dvc_reads_of_its_locks_what_it_would_have_written_itself(tmp_path: Path):
    from dvc.utils.serialize import _yaml, load_yaml, modify_yaml

    entry = OrderedDict(cmd="python -m stages.fetch b", deps=[{"path": "p/" + "a" * 90, "md5": "12345e678", "size": 7}])
    written = {}
    before = [getattr(_yaml, name) for name in (patches.READER, patches.WRITER)]
    for name, patched in (("theirs", nullcontext()), ("ours", patches.dvc_locks())):
        lock = tmp_path / name
        with patched:
            for stage in "ba":
                with modify_yaml(str(lock)) as data:
                    data.setdefault("stages", {})[f"fetch@{stage}"] = entry
        written[name] = load_yaml(lock)
    assert list(written["ours"]["stages"]) == ["fetch@b", "fetch@a"]
    assert written["ours"] == written["theirs"]
    assert [getattr(_yaml, name) for name in (patches.READER, patches.WRITER)] == before
