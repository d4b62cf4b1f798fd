"""Networks without weights: nothing is drawn for them, and what that would import stays out."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from stages import models
from stages.models.shared import checkpoint
from tests.workspace import ROOT

LOADED = """
import sys
from pathlib import Path
from stages import models
for name in sys.argv[1:]:
    models.load(name).load(Path("zoo", name))
sys.exit("torch._dynamo" in sys.modules)
"""


@pytest.mark.parametrize("name", ["paraformer", "emotion2vec"])
def test_no_random_number_is_drawn_for_weights_that_are_replaced(name: str):
    family = models.load(name)
    before = torch.get_rng_state()
    network = checkpoint.weightless(family.build, family.read_config(ROOT / "zoo" / name))
    assert torch.equal(torch.get_rng_state(), before)
    assert {parameter.device.type for parameter in network.parameters()} == {"cpu"}


def test_checkpoints_load_without_torch_s_compiler():
    subprocess.run([sys.executable, "-c", LOADED, "paraformer", "emotion2vec"], cwd=ROOT, check=True)


def test_tensors_that_funasr_makes_on_import_have_numbers_while_a_network_is_built_on_the_meta_device():
    with torch.device("meta"):
        with checkpoint.importing_funasr():
            made = torch.ones(1)
        assert torch.ones(1).is_meta
    assert made.item() == 1
