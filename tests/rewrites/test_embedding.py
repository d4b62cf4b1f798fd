"""Tables that are only looked up become INT8 by row, say nearly the same, and all others stay as they are."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from stages.rewrites import embedding
from tests.rewrites.graphs import difference, model, numbers, ops

RNG = np.random.default_rng(0)
TABLE = RNG.standard_normal((50, 8)) * np.exp(RNG.uniform(-4, 4, (50, 1)))  # rows of very different size
TABLE[7] = 0
IDS = {"ids": np.array([[0, 7, 49], [3, 3, 1]], np.int32)}
LOOKED_UP = "g (int32[B,N] ids, float[50,8] table) => (float[B,N,8] y) { y = Gather(table, ids) }"


def initializers(built: ir.Model) -> dict[str, np.dtype]:
    return {name: numbers(value).dtype for name, value in built.graph.initializers.items()}


def test_each_row_is_rounded_by_its_own_size():
    before = model(LOOKED_UP, table=TABLE)
    after, count = embedding.rewrite(before, 50)
    assert count == 1
    assert ops(after) == {"Gather": 2, "Cast": 1, "Mul": 1}
    assert initializers(after) == {"table.int8": np.int8, "table.scale": np.float32}
    assert initializers(before) == {"table": np.float32}
    for row in range(50):
        rounding = np.abs(TABLE[row]).max() / 254
        assert difference(before, after, {"ids": np.array([[row]], np.int32)}) <= 1.001 * rounding


def test_a_row_of_nothing_stays_nothing():
    rounded, scales = embedding.quantize_rows(np.zeros((2, 3), np.float32))
    assert not rounded.any()
    assert np.isfinite(scales).all()


def test_blocks_of_rows_are_the_same_as_all_at_once(monkeypatch: pytest.MonkeyPatch):
    whole = embedding.quantize_rows(TABLE.astype(np.float32))
    monkeypatch.setattr(embedding, "BLOCK", 7)
    rounded, scales = embedding.quantize_rows(TABLE.astype(np.float32))
    assert np.array_equal(rounded, whole[0])
    assert np.array_equal(scales, whole[1])


def test_a_table_that_two_look_up_is_stored_once():
    text = """
    g (int32[B,N] ids, float[50,8] table) => (float[B,N,8] y, float[B,N,8] z) {
      y = Gather <axis = -2> (table, ids)
      again = Gather(table, ids)
      z = Neg(again)
    }
    """
    before = model(text, table=TABLE)
    after, count = embedding.rewrite(before, 50)
    assert count == 1
    assert len(after.graph.initializers) == 2
    assert difference(before, after, IDS) <= np.abs(TABLE[[0, 7, 49, 3, 1]]).max() / 250


def test_a_name_that_is_taken_is_not_taken_again():
    text = """
    g (int32[B,N] ids, float[50,8] table, float[8] bias) => (float[B,N,8] y) {
      rows = Gather(table, ids)
      y = Add(rows, bias)
    }
    """
    before = model(text, table=TABLE, bias=RNG.standard_normal(8))
    before.graph.initializers["bias"].name = "table.int8"
    after, count = embedding.rewrite(before, 50)
    assert count == 1
    assert difference(before, after, IDS) <= np.abs(TABLE[[0, 7, 49, 3, 1]]).max() / 250


@pytest.mark.parametrize(
    ("outputs", "body"),
    [
        pytest.param("float[8,B,N] y", "y = Gather <axis = 1> (table, ids)", id="by column"),
        pytest.param("float[B,N,8] y, float[50,8] z", "y = Gather(table, ids) z = Neg(table)", id="all of it"),
        pytest.param(
            "float[B,N,50] y",
            "rows = Gather(table, ids) matrix = Transpose(table) y = MatMul(rows, matrix)",
            id="tied to the output layer",
        ),
        pytest.param("float[B,8] y", "y = Gather(ids, table)", id="as indices"),
    ],
)
def test_a_table_that_is_read_otherwise_too_is_left_alone(outputs: str, body: str):
    before = model(f"g (int32[B,N] ids, float[50,8] table) => ({outputs}) {{ {body} }}", table=TABLE)
    assert embedding.tables(before, 1) == []
    after, count = embedding.rewrite(before, 1)
    assert count == 0
    assert ops(after) == ops(before)


def test_small_tables_integers_and_excluded_nodes_are_left_alone():
    before = model(LOOKED_UP, table=TABLE)
    assert embedding.tables(before, 51) == []
    next(iter(before.graph)).name = "lookup"
    assert len(embedding.tables(before, 50)) == 1
    assert embedding.tables(before, 50, ["lookup"]) == []
    text = LOOKED_UP.replace("float[50,8]", "int32[50,8]").replace("float[B", "int32[B")
    assert embedding.tables(model(text, table=np.zeros((50, 8), np.int32)), 1) == []
