"""The recipes that `kiln tune` searches: what may be chosen, and which layers to leave in fp32 first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stages.commands import trials
from stages.commands.sensitivity import PART as SENSITIVITY
from stages.commands.trials import Bench, Int8
from stages.core import progress
from stages.core.params.recipes import DynamicRecipe, StaticRecipe

MOST_KEPT = 8  # layers that may stay in fp32
Choice = dict[str, Any]
FUNASR: Choice = {  # funasr.utils.export_utils, 1.4: quantize_dynamic(op_types=["MatMul"], per_channel, QUInt8)
    "graph": "simplify",
    "kind": "dynamic",
    "weight_type": "QUInt8",
    "per_channel": True,
    "reduce_range": False,
    "conv": False,
    "smooth": 0.0,
    "min_outputs": 1,
    "kept": 0,
}


def choose(trial: Any, order: Mapping[str, list[str]]) -> Choice:
    """Draw a point of the search space; what does not apply to its kind of recipe is not drawn."""
    graph = trial.suggest_categorical("graph", list(order))
    kind = trial.suggest_categorical("kind", ["dynamic", "static"])
    choice: Choice = {
        "graph": graph,
        "kind": kind,
        "weight_type": trial.suggest_categorical("weight_type", ["QInt8", "QUInt8"]),
        "per_channel": trial.suggest_categorical("per_channel", [True, False]),
        "reduce_range": trial.suggest_categorical("reduce_range", [True, False]),
        "conv": trial.suggest_categorical("conv", [False, True]),
        "smooth": trial.suggest_categorical("smooth", [0.0, 0.3, 0.5, 0.7]),
        "min_outputs": trial.suggest_categorical("min_outputs", [1, 8]),
        "kept": trial.suggest_int("kept", 0, min(MOST_KEPT, max(len(of) for of in order.values()) - 1)),
    }
    if choice["conv"]:
        choice["min_intensity"] = trial.suggest_categorical("min_intensity", [0, 64])
    if kind == "static":
        choice["calibration"] = trial.suggest_categorical("calibration", ["minmax", "percentile", "entropy"])
    return choice


def build_recipe(bench: Bench, choice: Choice, order: Mapping[str, list[str]]) -> Int8:
    """Build the recipe that a point of the search space describes."""
    kept = order[choice["graph"]][: choice["kept"]]
    nodes = trials.layers(bench.origin(choice["graph"]), _plain_recipe(bench))
    fields = {
        **{key: choice[key] for key in ("weight_type", "per_channel", "reduce_range", "min_outputs")},
        "op_types": _choose_op_types(choice),
        "min_intensity": choice.get("min_intensity", 0),
        "exclude_nodes": [node for layer in kept for node in nodes[layer]],
        "smooth": choice["smooth"] or None,
        "embedding_rows": bench.recipe.embedding_rows,
        "calibration_feeds": bench.recipe.calibration_feeds,
    }
    if choice["kind"] == "dynamic":
        return DynamicRecipe(kind="dynamic", **fields)
    return StaticRecipe(
        kind="static", activation_type="QUInt8", symmetric=False, calibration=choice["calibration"], **fields
    )


def _choose_op_types(choice: Choice) -> list[str]:
    """Return the operators that a point quantizes: an LSTM where the graph may hold ONNX Runtime's own."""
    lstm = choice["graph"] == "optimize" and choice["kind"] == "dynamic"
    return ["MatMul", "Gemm", *(["LSTM"] if lstm else []), *(["Conv"] if choice["conv"] else [])]


def _plain_recipe(bench: Bench) -> Int8:
    """Return the build's recipe without exceptions, at which each layer is measured."""
    return bench.recipe.model_copy(update={"exclude_nodes": [], "min_outputs": 1, "min_intensity": 0})


def order_layers(bench: Bench) -> dict[str, list[str]]:
    """Sort the layers of each kind of graph by sensitivity, the most sensitive first.

    By `kiln sensitivity` where that was run on the same graphs, else by the error of the outputs.
    """
    order = {}
    for graph in ("simplify", "optimize"):
        by_layer = trials.layers(bench.origin(graph), _plain_recipe(bench))
        every = {node for nodes in by_layer.values() for node in nodes}
        known = trials.read(bench.build).get(SENSITIVITY, {})
        units = (
            known.get("units", {}) if known.get("about", {}).get("graphs") == trials.subject(bench)["graphs"] else {}
        )
        if graph == bench.line.graph and all(layer in units for layer in by_layer):
            cost = {layer: (units[layer]["loss"], units[layer]["error"]) for layer in by_layer}
        else:
            cost = {}
            for layer, nodes in progress.each(list(by_layer.items()), f"layers of {graph}"):
                alone = _plain_recipe(bench).model_copy(update={"exclude_nodes": sorted(every - set(nodes))})
                cost[layer] = (0.0, trials.output_error(bench, trials.quantize_graphs(bench, alone, graph), graph))
        order[graph] = sorted(by_layer, key=lambda layer: cost[layer], reverse=True)
    return order
