"""What the server counts, and alerts that say what they mean: neither needs a server."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

import yaml

from stages.serving import metrics
from tests.workspace import ROOT


@dataclass
class Counted:
    """One of Triton's metrics."""

    name: str
    counts: Counter[str]

    def increment(self, by: float) -> None:
        self.counts[self.name] += int(by)

    def observe(self, _: float) -> None:
        self.counts[self.name] += 1


def test_a_stream_is_one_result_however_many_answers_it_has():
    counts: Counter[str] = Counter()
    counters, histograms = (
        {name: Counted(name, counts) for name in kind} for kind in (metrics.COUNTERS, metrics.HISTOGRAMS)
    )
    counted = metrics.Metrics([], counters, {}, histograms)
    for is_last in (False, False, True):
        counted.answered(0.1, 1.0, empty=True, is_last=is_last)
    counted.answered(0.1, 1.0, empty=False)
    assert (counts[metrics.REQUESTS], counts[metrics.RESULTS], counts[metrics.EMPTY]) == (4, 2, 1)


def test_an_alert_on_a_quantile_has_its_limit_at_a_bound_of_the_buckets():
    rules = yaml.safe_load((ROOT / "serving" / "alerts.yaml").read_text())["groups"][0]["rules"]
    expressions = [rule["expr"] for rule in rules if "histogram_quantile" in rule["expr"]]
    assert len(expressions) == len(metrics.HISTOGRAMS)
    for expression in expressions:
        name, limit = re.search(r"(kiln_\w+)_bucket.*> ([\d.]+)", expression, re.DOTALL).groups()  # type: ignore[union-attr]
        assert float(limit) in {*metrics.HISTOGRAMS[name][1], *metrics.LARGER}
