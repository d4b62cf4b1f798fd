"""Olive's workflow: run in .cache/peers/olive.

`python -m benchmarks.peers.olive RECIPE GRAPH CALIBRATION PLACE`
"""

from __future__ import annotations

import sys
from pathlib import Path

from olive.data.registry import Registry
from olive.workflows import run

from benchmarks.peers import calibration
from benchmarks.peers.processor import lacks_vnni


class Feeds:
    """The feeds as a data set of (inputs, label)."""

    def __init__(self, folder: str) -> None:
        """Read the recorded feeds of a folder."""
        self.feeds = calibration.read(Path(folder))

    def __len__(self) -> int:
        """Return the number of feeds."""
        return len(self.feeds)

    def __getitem__(self, index: int) -> tuple[calibration.Feeds, int]:
        """Return the inputs of one call, and the label that Olive wants beside them."""
        return self.feeds[index], 0


@Registry.register_dataset()  # type: ignore[untyped-decorator]  # the library has no types
def recorded_feeds(folder: str, **_: object) -> Feeds:
    """Return the data set that a `data_config` of Olive's names."""
    return Feeds(folder)


def main(recipe: str, graph: str, recorded: str, place: str) -> None:
    """Run the passes that `olive optimize` chooses for INT8 on a CPU, with the quantizer of the recipe."""
    shared = {"precision": "int8", "per_channel": True, "reduce_range": lacks_vnni()}
    passes = {
        "dynamic": {"type": "OnnxDynamicQuantization", "op_types_to_quantize": ["MatMul", "Gemm"], **shared},
        "static": {
            "type": "OnnxStaticQuantization",
            "op_types_to_quantize": ["Conv", "MatMul", "Gemm"],
            "prepare_qdq_config": False,  # its default also quantizes what is between these nodes
            "data_config": "feeds",
            **shared,
        },
    }
    run(
        {
            "input_model": {"type": "OnnxModel", "model_path": graph},
            "data_configs": [
                {
                    "name": "feeds",
                    "load_dataset_config": {"type": "recorded_feeds", "params": {"folder": recorded}},
                    "dataloader_config": {"type": "no_auto_batch_dataloader"},
                }
            ],
            "passes": {"peephole": {"type": "OnnxPeepholeOptimizer"}, "quantize": passes[recipe]},
            "output_dir": str(Path(place).parent),
        }
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
