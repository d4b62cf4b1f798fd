"""The calibration split as the plain export is fed it, for the static quantizers.

`python -m benchmarks.peers.calibration MODEL EXPORT FOLDER`, in Kiln's environment and the repository's root, records
it; the rest of this file needs only numpy and runs in every environment.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Feeds = dict[str, NDArray[Any]]
CALLS = 300  # of the network; more is what NNCF takes no notice of by default


def read(folder: Path) -> list[Feeds]:
    """Read the recorded feeds, one call after the other."""
    return [dict(np.load(path)) for path in sorted(folder.glob("*.npz"))]


class Reader:
    """The feeds in the interface through which ONNX Runtime's static quantizer, and what builds on it, reads them."""

    def __init__(self, feeds: list[Feeds]) -> None:
        """Start before the first feed."""
        self.feeds = feeds
        self.rewind()

    def get_next(self) -> Feeds | None:
        """Return the next feed, or None after the last."""
        return next(self.left, None)

    def get_first(self) -> Feeds:
        """Return the first feed without taking it."""
        return self.feeds[0]

    def rewind(self) -> None:
        """Start again at the first feed."""
        self.left = iter(self.feeds)


def record(model: str, export: Path, folder: Path) -> None:
    """Write the feeds on which Kiln's own quantizer would calibrate to `folder`, one .npz file for each call."""
    from stages import models
    from stages.core import layout, params
    from stages.corpora import manifest
    from stages.quantization import calibration

    p = params.load()
    family = models.load(p.models[model].family)
    recordings = manifest.read(layout.corpus(p.models[model].dataset), "calibration")
    feeds = calibration.record_feeds(family, layout.checkpoint(model), export, recordings, CALLS)["model"]
    folder.mkdir()
    for i, call in enumerate(feeds):
        np.savez(folder / f"{i:03}.npz", **call)  # type: ignore[arg-type]  # no graph has an input allow_pickle


if __name__ == "__main__":
    record(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
