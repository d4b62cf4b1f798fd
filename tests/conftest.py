"""Fixtures that more than one test module needs.

What they need of torch they import themselves: xdist's own process, which runs no test, would wait seconds for it.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from filelock import FileLock

from stages.core.files import new_folder
from stages.core.parallel import cores
from stages.corpora import manifest
from stages.corpora.manifest import Line, Recording
from tests import workspace
from tests.hub import Hub

LONGEST = (
    "test_campplus",
    "test_release",
    "test_search",
    "test_repro",
    "test_dvc",
    "test_ci",
    "test_kills",
    "test_network",
    "test_prune",
    "test_config_mutations",
    "test_simplify",
)  # first, or all wait for them; `make test` tells xdist to keep this order
EXPORTING = (
    ("test_campplus", "test_seaco_paraformer", "test_paraformer_streaming", "test_emotion2vec", "test_progress"),
    ("test_release", "test_paraformer", "test_sensevoice", "test_export", "test_patches"),
)  # about as long as each other, each in one process: torch's exporter takes seconds to import
MakeOnce = Callable[[str, Callable[[Path], None]], Path]
CONFIG: dict[str, Any] = {
    "model": "FsmnVADStreaming",
    "frontend_conf": {"fs": 16000, "window": "hamming", "n_mels": 80, "frame_length": 25, "frame_shift": 10}
    | {"dither": 0.0, "lfr_m": 5, "lfr_n": 1},
    "model_conf": {
        "sample_rate": 16000,
        "max_end_silence_time": 800,
        "max_single_segment_time": 60000,
        "speech_noise_thres": 0.6,
    },
    "encoder": "FSMN",
    "encoder_conf": {"input_dim": 400, "input_affine_dim": 24, "fsmn_layers": 4, "linear_dim": 32, "proj_dim": 16}
    | {"lorder": 20, "rorder": 0, "lstride": 1, "rstride": 0, "output_affine_dim": 24, "output_dim": 12},
}

gc.disable()  # until all is imported: most of what it would go through stays
if "PYTEST_XDIST_WORKER" in os.environ:  # there are processes enough: threads of torch would wait for each other
    os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is imported, by children too


def pytest_xdist_auto_num_workers() -> int:
    """Run one process more than there are cores: tests of builds and kills wait for processes of theirs."""
    return cores() + 1


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of a file, or of all that export, in one process; those of each replica apart."""
    for item in items:
        callspec = getattr(item, "callspec", None)
        replica = callspec and callspec.params.get("built")
        together = next((group[0] for group in EXPORTING if item.path.stem in group), str(item.path))
        item.add_marker(pytest.mark.xdist_group(f"{item.path.stem}-{replica}" if replica else together))
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


def pytest_collection_finish() -> None:
    """Keep what was imported out of each pass of the garbage collector, and make these as rare as in a stage."""
    gc.freeze()
    gc.set_threshold(100_000)
    gc.enable()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """An empty model hub on the loopback interface, chosen by the environment."""
    with Hub() as server:
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", server.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.delenv("MODELSCOPE_DOWNLOAD_INTRA_CLOUD", raising=False)
        yield server


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A FunASR FSMN-VAD checkpoint with the real one's layout, random weights and a fifteenth of its size."""
    import torch

    from stages.models import fsmn_vad

    folder = tmp_path_factory.mktemp("tiny") / "checkpoint"
    folder.mkdir()
    torch.manual_seed(0)
    model = fsmn_vad.build(CONFIG)
    torch.save(model.state_dict(), folder / "model.pt")
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    shift, scale = " ".join(["-10.0"] * 400), " ".join(["0.2"] * 400)
    (folder / "am.mvn").write_text(
        f"<Nnet>\n<Splice> 400 400\n[ 0 ]\n<AddShift> 400 400\n<LearnRateCoef> 0 [ {shift} ]\n"
        f"<Rescale> 400 400\n<LearnRateCoef> 0 [ {scale} ]\n</Nnet>\n"
    )
    return folder


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bursts of noise between silences, three seconds each, in every split."""
    folder = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    for split in manifest.SPLITS:
        lines = []
        for number in range(10 if split == "evaluation" else 4):
            samples = 0.001 * rng.standard_normal(48_000)
            samples[16_000:32_000] += 0.2 * rng.standard_normal(16_000)
            digest = manifest.write_wav(folder / f"{split}-{number}.wav", samples)
            line = Line(
                id=f"{split}-{number}", wav=f"{split}-{number}.wav", seconds=3.0, segments=[(1.0, 2.0)], sha256=digest
            )
            lines.append(line)
        manifest.write(folder, split, lines)
    return folder


@pytest.fixture(scope="session")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> list[Recording]:
    """Six short recordings with their texts."""
    from stages.corpora import spoken_commands

    folder = tmp_path_factory.mktemp("spoken")
    spoken_commands.make(4, {"calibration": 1, "tuning": 1, "evaluation": 6}, folder)
    return manifest.read(folder, "evaluation")


@pytest.fixture(scope="session")
def make_once(tmp_path_factory: pytest.TempPathFactory) -> MakeOnce:
    """Make a folder of that name in the first process of the run that asks for it; nobody may change it."""
    root = tmp_path_factory.getbasetemp()
    shared = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root

    def make(name: str, fill: Callable[[Path], None]) -> Path:
        place = shared / "once" / name
        place.parent.mkdir(exist_ok=True)
        with FileLock(f"{place}.lock"):
            if not place.is_dir():
                with new_folder(place) as folder:
                    fill(folder)
        return place

    return make


@pytest.fixture(scope="session")
def tiny_export(tiny_checkpoint: Path, make_once: MakeOnce) -> Path:
    """The tiny checkpoint's graphs, as `export` leaves them."""

    def fill(folder: Path) -> None:
        from stages.export import export_variant
        from stages.models import fsmn_vad

        export_variant(fsmn_vad, tiny_checkpoint, folder, opset=18, tolerance=1e-5)

    return make_once("tiny-export", fill)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with made-up artifacts and measurements of every verdict."""
    workspace.make(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path
