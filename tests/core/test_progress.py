"""A terminal shows what a stage is doing; that a log gets nothing of it, tests/test_network.py tells of all stages."""

from __future__ import annotations

import os
import pty
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType

import pytest
import torch

from stages import benchmark, export, optimize, prune, quantize, reference, simplify
from stages.core import layout, params, progress
from stages.core.parallel import in_shares
from stages.corpora import manifest, spoken_commands
from stages.corpora.manifest import Recording
from stages.pruning import narrowing
from tests import workspace
from tests.pruning.test_narrowing import everywhere, network

MODEL = "fsmn_vad"


class Terminal:
    """A pseudo-terminal in the place of standard error, and what was written to it."""

    def __init__(self) -> None:
        master, slave = pty.openpty()
        self.file = os.fdopen(slave, "w", encoding="utf-8")
        self.seen, self._written = "", threading.Condition()
        threading.Thread(target=self._read, args=(master,), daemon=True).start()

    def _read(self, master: int) -> None:
        while True:
            try:
                data = os.read(master, 4096)
            except OSError:  # the other end was closed
                break
            with self._written:
                self.seen += data.decode()
                self._written.notify_all()
        os.close(master)

    def wait_for(self, text: str, times: int = 1) -> bool:
        """Whether it shows a text, once it does."""
        with self._written:
            return self._written.wait_for(lambda: self.seen.count(text) >= times, timeout=10)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Terminal]]:
    """Put a terminal in the place of standard error; by a call, because pytest replaces that before each test."""
    terminal = Terminal()

    def open_it() -> Terminal:
        monkeypatch.setattr(sys, "stderr", terminal.file)
        return terminal

    yield open_it
    terminal.file.close()


def test_items_are_counted_as_they_are_gone_through(terminal: Callable[[], Terminal]):
    screen = terminal()
    assert list(progress.each("abc", "letters")) == ["a", "b", "c"]
    assert screen.wait_for("letters: 0 of 3")
    shown = progress.each("abc", "letters")
    assert (len(shown), shown[1], shown[1:]) == (3, "b", "bc")


def test_a_call_of_a_library_shows_its_seconds_while_it_lasts(
    terminal: Callable[[], Terminal], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(progress, "SECONDS", 0.01)
    screen = terminal()
    with progress.phase("library"):
        assert screen.wait_for("library: 00:00", times=3)
    assert "progress" not in {thread.name for thread in threading.enumerate()}


def test_what_is_shared_between_processes_is_shown_once(terminal: Callable[[], Terminal], tiny_corpus: Path):
    recordings = manifest.read(tiny_corpus, "evaluation")

    def work(share: Sequence[Recording]) -> list[str]:
        return [recording.id for recording in share]

    screen = terminal()
    assert in_shares(work, recordings, processes=2) == [recording.id for recording in recordings]
    assert screen.wait_for("recordings: 0 of 5")


def test_a_data_set_shows_its_splits(terminal: Callable[[], Terminal], tmp_path: Path):
    screen = terminal()
    spoken_commands.make(4, {"calibration": 1, "tuning": 1, "evaluation": 2}, tmp_path)
    assert screen.wait_for("evaluation: 0 of 2")


def test_layers_are_counted_as_they_are_cut_and_refitted(terminal: Callable[[], Terminal]):
    screen, audio = terminal(), torch.randn(2, 20, 6)
    small = network(4, 4).requires_grad_(False)
    refit = narrowing.cut(
        network(8, 8),
        small,
        lambda model: model(audio),
        everywhere,
        "magnitude",
        1e-6,
    )
    assert screen.wait_for("layers cut: 0 of 3")
    refit()
    assert screen.wait_for("layers refitted: 0 of 3")


STAGES: dict[ModuleType, tuple[str, list[str]]] = {  # in order: the key, and what a terminal shows
    export: (f"{MODEL}-dense", ["load the checkpoint", "export model", "compare model"]),
    simplify: (f"{MODEL}-dense", ["simplify model", "compare model"]),
    optimize: (f"{MODEL}-dense", ["rewrites of model.onnx: 0 of 7"]),
    quantize: (f"{MODEL}-dense-int8", ["quantize model"]),
    reference: (MODEL, ["recordings: 0 of "]),
    benchmark: (f"{MODEL}-cpu_fp32_opt", ["memory", "rounds over all cases"]),
    prune: (MODEL, ["load the checkpoint", "features of the calibration data", "recordings: 0 of", "distillation"]),
}


@pytest.fixture
def _repository(tiny_checkpoint: Path, tiny_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The repository's params.yaml with the tiny FSMN-VAD, and stages that are short."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(workspace.ROOT))
    shutil.copy(workspace.ROOT / "params.yaml", tmp_path)
    shutil.copytree(tiny_checkpoint, layout.checkpoint(MODEL))
    shutil.copytree(tiny_corpus, layout.corpus("vad_mixtures"))
    p = params.load()
    settings = workspace.PRUNE.model_copy(update={"dataset": "vad_mixtures"})
    quick = p.benchmark.model_copy(update={"seconds": 0.01, "extra_blocks": 0})
    short = p.model_copy(update={"prune": {MODEL: settings}, "benchmark": quick})
    monkeypatch.setattr(params, "load", lambda: short)


@pytest.mark.usefixtures("_repository")
def test_a_terminal_shows_what_each_stage_does(terminal: Callable[[], Terminal]):
    screen = terminal()
    missing = {}
    for stage, (key, shown) in STAGES.items():
        screen.seen = ""
        stage.main([key])
        missing[stage.__name__] = [text for text in shown if not screen.wait_for(text)]
    assert missing == {stage.__name__: [] for stage in STAGES}
