"""sherpa-onnx over a release folder: `python -m tests.sherpa KIND FOLDER`, inputs and answers as JSON.

A process of its own: where a graph lacks metadata, the library exits.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sherpa_onnx
import soundfile

RATE = 16000
TAIL = [0.0] * (RATE // 2)  # a stream's last chunk is decoded when more has arrived


def run(kind: str, folder: Path, inputs: Sequence[str]) -> list[Any]:
    """Give a child the paths of WAV files, or texts, and return the text of each, or the embedding.

    Raises:
        CalledProcessError: the library refused the release.
    """
    command = [sys.executable, "-m", "tests.sherpa", kind, str(folder)]
    done = subprocess.run(command, input=json.dumps(list(inputs)), capture_output=True, text=True, check=True)
    answers: list[Any] = json.loads(done.stdout.splitlines()[-1])
    return answers


def paraformer(folder: Path, wavs: Sequence[str]) -> list[str]:
    recognizer = sherpa_onnx.OfflineRecognizer.from_paraformer(
        paraformer=str(folder / "model.onnx"), tokens=str(folder / "tokens.txt"), num_threads=1
    )
    return [_decoded(recognizer, wav) for wav in wavs]


def sensevoice(folder: Path, wavs: Sequence[str]) -> list[str]:
    return _tagged(folder, wavs, use_itn=False)


def sensevoice_with_figures(folder: Path, wavs: Sequence[str]) -> list[str]:
    return _tagged(folder, wavs, use_itn=True)


def _tagged(folder: Path, wavs: Sequence[str], *, use_itn: bool) -> list[str]:
    recognizer = sherpa_onnx.OfflineRecognizer.from_sense_voice(
        model=str(folder / "model.onnx"), tokens=str(folder / "tokens.txt"), num_threads=1, use_itn=use_itn
    )
    return [_decoded(recognizer, wav) for wav in wavs]


def _decoded(recognizer: Any, wav: str) -> str:
    stream = recognizer.create_stream()
    stream.accept_waveform(RATE, soundfile.read(wav, dtype="float32")[0])
    recognizer.decode_stream(stream)
    return stream.result.text


def paraformer_streaming(folder: Path, wavs: Sequence[str]) -> list[str]:
    recognizer = sherpa_onnx.OnlineRecognizer.from_paraformer(
        encoder=str(folder / "model.onnx"),
        decoder=str(folder / "decoder.onnx"),
        tokens=str(folder / "tokens.txt"),
        num_threads=1,
    )
    return [_streamed(recognizer, wav) for wav in wavs]


def _streamed(recognizer: Any, wav: str) -> str:
    stream = recognizer.create_stream()
    stream.accept_waveform(RATE, soundfile.read(wav, dtype="float32")[0])
    stream.accept_waveform(RATE, TAIL)
    stream.input_finished()
    while recognizer.is_ready(stream):
        recognizer.decode_stream(stream)
    return recognizer.get_result(stream)


def ct_transformer(folder: Path, texts: Sequence[str]) -> list[str]:
    model = sherpa_onnx.OfflinePunctuationModelConfig(ct_transformer=str(folder / "model.onnx"), num_threads=1)
    punctuation = sherpa_onnx.OfflinePunctuation(sherpa_onnx.OfflinePunctuationConfig(model=model))
    return [punctuation.add_punctuation(text) for text in texts]


def campplus(folder: Path, wavs: Sequence[str]) -> list[list[float]]:
    config = sherpa_onnx.SpeakerEmbeddingExtractorConfig(model=str(folder / "model.onnx"), num_threads=1)
    extractor = sherpa_onnx.SpeakerEmbeddingExtractor(config)
    return [_embedding(extractor, wav) for wav in wavs]


def _embedding(extractor: Any, wav: str) -> list[float]:
    stream = extractor.create_stream()
    stream.accept_waveform(RATE, soundfile.read(wav, dtype="float32")[0])
    stream.input_finished()
    return extractor.compute(stream)


KINDS = {
    "paraformer": paraformer,
    "paraformer_streaming": paraformer_streaming,
    "ct_transformer": ct_transformer,
    "campplus": campplus,
    "sensevoice": sensevoice,
    "sensevoice_with_figures": sensevoice_with_figures,
}

if __name__ == "__main__":
    print(json.dumps(KINDS[sys.argv[1]](Path(sys.argv[2]), json.load(sys.stdin))))
