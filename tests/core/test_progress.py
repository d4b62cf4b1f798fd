"""A terminal shows what a stage is doing; a file or a pipe gets nothing of it."""

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


@pytest.fixture(scope="module")
def repository(tiny_checkpoint: Path, tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository's params.yaml with the tiny FSMN-VAD and the graphs that its stages make."""
    root = tmp_path_factory.mktemp("repository")
    shutil.copy(workspace.ROOT / "params.yaml", root)
    shutil.copytree(tiny_checkpoint, root / layout.checkpoint(MODEL))
    shutil.copytree(tiny_corpus, root / layout.corpus("vad_mixtures"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("PYTHONPATH", str(workspace.ROOT))
        for stage in (export, simplify, optimize):
            stage.main([f"{MODEL}-dense"])
    return root


STAGES = [
    pytest.param(export, f"{MODEL}-dense", ["load the checkpoint", "export model", "compare model"], id="export"),
    pytest.param(simplify, f"{MODEL}-dense", ["simplify model", "compare model"], id="simplify"),
    pytest.param(optimize, f"{MODEL}-dense", ["rewrites of model.onnx: 0 of 7"], id="optimize"),
    pytest.param(quantize, f"{MODEL}-dense-int8", ["quantize model"], id="quantize"),
    pytest.param(reference, MODEL, ["recordings: 0 of "], id="reference"),
    pytest.param(
        benchmark,
        f"{MODEL}-cpu_fp32_opt",
        ["memory and older versions of ONNX Runtime", "rounds over all cases"],
        id="benchmark",
    ),
    pytest.param(
        prune,
        MODEL,
        ["load the checkpoint", "features of the calibration data", "recordings: 0 of", "distillation"],
        id="prune",
    ),
]


@pytest.fixture
def run(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[ModuleType, str], None]:
    """Run a stage there, a short one."""
    monkeypatch.chdir(repository)
    monkeypatch.setenv("PYTHONPATH", str(workspace.ROOT))
    p = params.load()
    settings = workspace.PRUNE.model_copy(update={"dataset": "vad_mixtures"})
    quick = p.benchmark.model_copy(update={"seconds": 0.01, "extra_blocks": 0})
    short = p.model_copy(update={"prune": {MODEL: settings}, "benchmark": quick})
    monkeypatch.setattr(params, "load", lambda: short)
    return lambda stage, key: stage.main([key])


@pytest.mark.parametrize(("stage", "key", "shown"), STAGES)
def test_a_stage_shows_what_it_does(
    run, terminal: Callable[[], Terminal], stage: ModuleType, key: str, shown: list[str]
):
    screen = terminal()
    run(stage, key)
    assert [text for text in shown if not screen.wait_for(text)] == []


@pytest.mark.parametrize(("stage", "key", "shown"), STAGES)
def test_nothing_of_it_is_in_a_log(
    run, capfd: pytest.CaptureFixture[str], stage: ModuleType, key: str, shown: list[str]
):
    run(stage, key)
    written = capfd.readouterr()
    assert written.err == ""
    assert not any(text in written.out for text in shown)
