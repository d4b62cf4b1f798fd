"""How torch's exporter calls onnxscript. Seen in torch 2.15 and onnxscript 0.7."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from stages.core.patches import replace

TORCHLIB = "from_torchlib"  # of torch's ONNXRegistry
RULES = "_DEFAULT_REWRITE_RULES"  # of onnxscript's rewriter
QUADRATIC = "SlicesSplit"  # the one of them that has several outputs


@contextmanager
def exporter() -> Iterator[None]:
    """Run torch's exporter with its table of operators made once, and its optimizer without rules of several outputs.

    For the table, 500 functions are read from their source: 0.3 s for every graph. Such a rule of the optimizer,
    onnxscript's, goes through the whole graph at each node: half the time of Paraformer-large. There is one, and no
    family has what it looks for.
    """
    from onnxscript import rewriter
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    rules = getattr(rewriter, RULES)
    once = staticmethod(functools.partial(_table_of_operators, getattr(ONNXRegistry, TORCHLIB)))
    kept = [rule for rule in rules if rule.name != QUADRATIC]
    with replace(ONNXRegistry, TORCHLIB, once), replace(rewriter, RULES, kept):
        yield


@functools.cache
def _table_of_operators(load: Callable[..., Any], opset_version: int) -> Any:
    return load(opset_version=opset_version)
