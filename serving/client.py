"""Ask a server of `kiln serve` about a WAV file, over HTTP or gRPC: an example to copy from, with tritonclient alone.

`python -m serving.client speech.wav --model paraformer` asks over HTTP; over gRPC, piece by piece as if it arrived:
`python -m serving.client speech.wav --model paraformer_streaming --url 127.0.0.1:8001 --grpc --stream`.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterator
from typing import Any, Self

import numpy as np
import soundfile
from numpy.typing import NDArray

SAMPLE_RATE = 16_000
PIECE = 9600  # samples of a stream's request: 600 ms
Floats = NDArray[np.float32]
Answer = dict[str, NDArray[Any]]


class Client:
    """A connection to one model; protocol: `http` or `grpc`."""

    def __init__(self, protocol: str, url: str, model: str) -> None:
        """Connect; url: host and port."""
        self.library = importlib.import_module(f"tritonclient.{protocol}")
        self.server, self.model = self.library.InferenceServerClient(url), model

    def __enter__(self) -> Self:
        """Leave it open."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self.server.close()

    def ask(self, inputs: Answer, **sequence: Any) -> Answer:
        """Send one request and return its outputs by name; sequence: tritonclient's `sequence_id` and so on."""
        tensors = [self._tensor(name, array) for name, array in inputs.items()]
        result = self.server.infer(self.model, tensors, **sequence)
        described = result.get_response()
        outputs = described["outputs"] if isinstance(described, dict) else described.outputs
        names = [one["name"] if isinstance(one, dict) else one.name for one in outputs]
        return {name: result.as_numpy(name) for name in names}

    def _tensor(self, name: str, array: NDArray[Any]) -> Any:
        kinds = {"float32": "FP32", "int32": "INT32", "object": "BYTES"}
        tensor = self.library.InferInput(name, list(array.shape), kinds[str(array.dtype)])
        tensor.set_data_from_numpy(array)
        return tensor

    def recognize(self, samples: Floats) -> Answer:
        """Ask about a whole recording, float32 (samples,) at 16 kHz."""
        return self.ask(batch_audio(samples))

    def stream(self, samples: Floats, sequence: int, piece: int = PIECE) -> Iterator[Answer]:
        """Send a recording piece by piece, as it would arrive; sequence: a number that no other live stream has."""
        starts = range(0, max(len(samples), 1), piece)
        for start in starts:
            place = {"sequence_start": start == 0, "sequence_end": start == starts[-1]}
            yield self.ask(batch_audio(samples[start : start + piece]), sequence_id=sequence, **place)


def batch_audio(samples: Floats) -> Answer:
    """Return the inputs of a model that takes audio: a batch of one row, and its length."""
    return {"WAV": samples[None], "WAV_LENS": np.array([[len(samples)]], np.int32)}


def main() -> None:
    """Print what the model makes of a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wav")
    parser.add_argument("--model", required=True)
    parser.add_argument("--url", default="127.0.0.1:8000")
    parser.add_argument("--grpc", action="store_true")
    parser.add_argument("--stream", action="store_true")
    arguments = parser.parse_args()
    samples, rate = soundfile.read(arguments.wav, dtype="float32")
    if rate != SAMPLE_RATE or samples.ndim != 1:
        parser.error(f"{arguments.wav}: found {rate} Hz of shape {samples.shape}, wanted {SAMPLE_RATE} Hz, one channel")
    with Client("grpc" if arguments.grpc else "http", arguments.url, arguments.model) as client:
        for answer in client.stream(samples, 1) if arguments.stream else [client.recognize(samples)]:
            for name, array in answer.items():
                texts = [each.decode() for each in array.ravel()] if array.dtype == np.object_ else array.tolist()
                print(name, *texts)


if __name__ == "__main__":
    main()
