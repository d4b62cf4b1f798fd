"""What torch's exporter calls of onnxscript. Seen in 0.7."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from stages.core.patches import replace

RULES = "_DEFAULT_REWRITE_RULES"  # of its rewriter
QUADRATIC = "SlicesSplit"  # the one of them that has several outputs


@contextmanager
def exporter() -> Iterator[None]:
    """Run the optimizer that torch's exporter calls, onnxscript's, without rules of several outputs.

    At each node they go through the whole graph: half the time of Paraformer-large. There is one, and no family has
    what it looks for.
    """
    from onnxscript import rewriter

    rules = getattr(rewriter, RULES)
    with replace(rewriter, RULES, [rule for rule in rules if rule.name != QUADRATIC]):
        yield
