"""A release in the programs of FunASR's C++ runtime, beside what it gives here.

    python -m benchmarks.cpp_server BINARIES artifacts/release/fsmn_vad-cpu_fp32 artifacts/corpus/vad_mixtures 100

BINARIES has `funasr-onnx-offline` and its like, built from FunASR's `runtime/onnxruntime` (benchmarks/NOTES.md says
how). They run as users get them: with `--quantize true` where the release has INT8. Printed is of how many recordings,
or texts, of the evaluation split both say the same, what they say of the first others, and the error rate of both.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jiwer

from stages import models
from stages.core import graphs
from stages.corpora import manifest
from stages.corpora.manifest import Recording
from stages.models.ct_transformer.metrics import read_marks
from stages.release.contents import quantized_name
from stages.runtimes import onnxruntime
from stages.serving.repository import read_release

PIECE = 9600  # samples, that the streaming program hands over at a time
HOTWORDS = "seaco_paraformer"
OFFLINE = ("funasr-onnx-offline", "--wav-path", r"\] \d+ : (?!\[)(.*)")
PROGRAMS = {  # of a family: the program, its option for what it reads, and how it prints what it makes of each
    "ct_transformer": ("funasr-onnx-offline-punc", "--txt-path", r"Results: (.*)"),
    "fsmn_vad": ("funasr-onnx-offline-vad", "--wav-path", r"\] \d+: (\[.*\])"),
    "paraformer": OFFLINE,
    "paraformer_streaming": ("funasr-onnx-online-asr", "--wav-path", r"Final results \d+ : (.*)"),
    "seaco_paraformer": OFFLINE,
}


def run_there(binaries: Path, folder: Path, family: str, recordings: Sequence[Recording]) -> list[str]:
    """Run FunASR's program on recordings and return what it prints of each."""
    name, option, printed = PROGRAMS[family]
    with tempfile.TemporaryDirectory() as scratch:
        listed = Path(scratch) / ("list.txt" if option == "--txt-path" else "list.scp")
        lines = [text_of(one) if option == "--txt-path" else f"{n} {one.path}" for n, one in enumerate(recordings)]
        listed.write_text("\n".join(lines) + "\n", encoding="utf-8")
        quantize = str((folder / quantized_name("model.onnx")).is_file()).lower()
        command = [str(binaries / name), "--model-dir", str(folder), "--quantize", quantize, option, str(listed)]
        if family == HOTWORDS:
            words = Path(scratch) / "hotwords.txt"
            words.write_text("".join(f"{word} 20\n" for word in recordings[0].hotwords), encoding="utf-8")
            command += ["--hotword", str(words)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.findall(printed, done.stderr)
    if done.returncode or len(found) != len(recordings):
        sys.exit(f"{name} ended with {done.returncode}, {len(found)} of {len(recordings)}:\n{done.stderr[-3000:]}")
    return found


def text_of(one: Recording) -> str:
    """Return a text without its marks, as a recognizer would hand it over."""
    return "".join(read_marks(one.text)[0])


def load_here(folder: Path, family: str, recordings: Sequence[Recording]) -> Callable[[Recording], Any]:
    """Load a release as Kiln scores it; of recordings the first has the hotwords that all are given."""
    graph_set = graphs.read(folder)
    artifact = graph_set, onnxruntime.load(folder, graph_set)
    if family == "ct_transformer":
        punctuate = models.PUNCTUATORS.load(family).load_punctuator(folder, artifact)
        return lambda one: punctuate(read_marks(one.text)[0]).text
    if family == "fsmn_vad":
        detect = models.DETECTORS.load(family).load_detector(folder, artifact, "offline")
        return lambda one: str(detect(one.samples()).segments).replace(" ", "")
    if family == "paraformer_streaming":
        load = models.STREAMED.load(family).load_stream
        return lambda one: stream(load(folder, artifact), one)
    recognize: Callable[..., Any] = models.RECOGNIZERS.load(family).load_recognizer(folder, artifact)
    given = {"hotword": " ".join(recordings[0].hotwords)} if family == HOTWORDS else {}
    return lambda one: recognize(one.samples(), **given).text


def stream(push: Callable[..., str], one: Recording) -> str:
    """Push a recording piece by piece, as the streaming program does."""
    samples, cache = one.samples(), dict[str, Any]()
    starts = range(0, len(samples), PIECE)
    return "".join(push(samples[start : start + PIECE], cache, start == starts[-1]) for start in starts)


def folded(text: str) -> str:
    """Return a text with its marks, of which one of the two writes some in ASCII, and without spaces and case."""
    return unicodedata.normalize("NFKC", text).lower().replace(" ", "").replace(".", "。")


def main() -> None:
    """Compare, and print."""
    binaries, folder, data, count = (*map(Path, sys.argv[1:4]), int(sys.argv[4]))
    family = read_release(folder).family
    recordings = manifest.read(data, "evaluation")[:count]
    there = run_there(binaries, folder, family, recordings)
    here = list(map(load_here(folder, family, recordings), recordings))
    bare = [list(map(folded, texts)) for texts in (there, here)]
    others = [pair for pair, one, other in zip(zip(there, here, strict=True), *bare, strict=True) if one != other]
    print(f"{folder.name}: {len(recordings) - len(others)} of {len(recordings)} the same")
    for one, other in others[:5]:
        print(f"  there {one}\n  here  {other}")
    if family not in ("ct_transformer", "fsmn_vad"):
        truth = [folded(one.text) for one in recordings]
        print("  CER there and here:", *(f"{jiwer.cer(truth, texts):.4f}" for texts in bare))


if __name__ == "__main__":
    main()
