"""An LSTM in INT8: ONNX Runtime's own operator, with scales for each direction and gate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from stages.core import params
from stages.core.graphs import Feeds
from stages.core.params.recipes import DynamicRecipe
from stages.quantize import quantize
from stages.runtimes import onnxruntime
from tests.workspace import ROOT

STEPS, BATCH, INPUTS, HIDDEN = 20, 3, 25, 32
LENGTHS = [STEPS, 7, 13]
OUTPUTS = ["y", "last", "cell"]


def recipe() -> DynamicRecipe:
    """The recipe of the INT8 targets, without smoothing, which asks for feeds."""
    found = params.load(ROOT / "params.yaml").quantize.recipes["int8"]
    assert isinstance(found, DynamicRecipe)
    return found.model_copy(update={"smooth": None})


def write_lstm(place: Path, direction: str, directions: int) -> Feeds:
    """Write an LSTM over padded sequences with initial states to `place`, and return what it is fed."""
    rng, states = np.random.default_rng(0), f"float[{directions},{BATCH},{HIDDEN}]"
    model = onnx.parser.parse_model(f"""<ir_version: 8, opset_import: ["" : 14]>
    g (float[T,{BATCH},{INPUTS}] x, int32[{BATCH}] lengths, {states} h, {states} c)
      => (float[T,{directions},{BATCH},{HIDDEN}] y, {states} last, {states} cell) {{
      y, last, cell = LSTM<hidden_size = {HIDDEN}, direction = "{direction}">(x, w, r, b, lengths, h, c)
    }}""")
    model.graph.node[0].name = "lstm"
    for name, shape in {"w": (4 * HIDDEN, INPUTS), "r": (4 * HIDDEN, HIDDEN), "b": (8 * HIDDEN,)}.items():
        weight = rng.normal(size=(directions, *shape)) / np.sqrt(HIDDEN)
        weight *= np.arange(1, directions + 1).reshape(-1, *[1] * len(shape))  # one direction's are larger
        model.graph.initializer.append(onnx.numpy_helper.from_array(weight.astype(np.float32), name))
    onnx.save(model, place)
    shapes = {"x": (STEPS, BATCH, INPUTS), "h": (directions, BATCH, HIDDEN), "c": (directions, BATCH, HIDDEN)}
    feeds = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    return feeds | {"lengths": np.array(LENGTHS, np.int32)}


def constants(place: Path) -> dict[str, np.ndarray]:
    return {i.name: onnx.numpy_helper.to_array(i) for i in onnx.load(place).graph.initializer}


@pytest.fixture(params=[("forward", 1), ("reverse", 1), ("bidirectional", 2)], ids=lambda one: one[0])
def lstm(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Feeds]:
    return tmp_path / "lstm.onnx", write_lstm(tmp_path / "lstm.onnx", *request.param)


def test_an_lstm_at_int8_is_near_fp32_at_every_length_and_from_any_state(lstm: tuple[Path, Feeds], tmp_path: Path):
    source, feeds = lstm
    assert quantize(source, tmp_path / "q.onnx", recipe()) == {"quantized": {"lstm": "LSTM -> INT8"}, "kept": {}}
    expected, found = (onnxruntime.session(path).run(OUTPUTS, feeds) for path in (source, tmp_path / "q.onnx"))
    for value, near in zip(expected, found, strict=True):
        assert 0 < np.sqrt(np.mean((near - value) ** 2) / np.mean(value**2)) < 0.03
    for row, length in enumerate(LENGTHS):
        assert not found[0][length:, :, row].any()
    still = onnxruntime.session(tmp_path / "q.onnx").run(["y"], feeds | {"h": feeds["h"] * 0, "c": feeds["c"] * 0})[0]
    assert np.abs(still - found[0])[:, :, 0].max() > 0.1


def test_the_weights_of_an_lstm_are_int8_with_a_scale_for_each_direction_and_gate(
    lstm: tuple[Path, Feeds], tmp_path: Path
):
    source, _ = lstm
    quantize(source, tmp_path / "q.onnx", recipe())
    wanted, tensors = map(constants, (source, tmp_path / "q.onnx"))
    for name in ("w", "r"):
        numbers, scales = tensors[f"{name}_quantized"], tensors[f"{name}_scale"]
        directions, gates, inputs = wanted[name].shape
        assert numbers.dtype == np.int8
        assert numbers.shape == (directions, inputs, gates)
        assert scales.shape == (directions, gates)
        back = np.swapaxes(numbers * scales[:, None], 1, 2)
        assert np.abs(back - wanted[name]).max() <= scales.max() / 2 * 1.001
        pairs = numbers.astype(int)[:, : inputs // 2 * 2].reshape(directions, -1, 2, gates).sum(axis=2)
        assert np.abs(255 * pairs).max() < 2**15  # of neighbouring inputs, as a CPU without VNNI adds them in 16 bits
        assert np.abs(numbers.astype(int)).max(axis=1).mean() > 64  # of 7 bits the largest


def test_an_excluded_lstm_stays_as_it_is_and_says_so(tmp_path: Path):
    feeds = write_lstm(tmp_path / "lstm.onnx", "bidirectional", 2)
    without = recipe().model_copy(update={"exclude_nodes": ["lstm"]})
    record = quantize(tmp_path / "lstm.onnx", tmp_path / "q.onnx", without)
    assert record == {"quantized": {}, "kept": {"lstm": "LSTM: in exclude_nodes"}}
    expected, found = (onnxruntime.session(tmp_path / name).run(OUTPUTS, feeds) for name in ("lstm.onnx", "q.onnx"))
    assert all(map(np.array_equal, expected, found))
