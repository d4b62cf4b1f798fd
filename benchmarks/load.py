"""How many requests a server of `kiln serve` answers, and how fast: `make load MODEL=paraformer`.

A fixed number of clients ask over gRPC, each its next question when it has an answer, so never more than that are
under way. The audio is noise of 2 to 10 seconds, of which a recognizer makes no words but all of the work.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tritonclient.grpc.aio as triton
from numpy.typing import NDArray
from tritonclient.utils import np_to_triton_dtype

RATE = 16_000
SECONDS = (2.0, 10.0)


async def drive(
    url: str, model: str, requests: int, concurrency: int, seed: int = 0
) -> tuple[list[float], float, float]:
    """Return the milliseconds of each answer, the seconds of all of them and the seconds of audio that were sent."""
    rng, latencies = np.random.default_rng(seed), []
    lengths = (RATE * rng.uniform(*SECONDS, requests)).astype(int)
    remaining: Iterator[int] = iter(lengths)
    async with triton.InferenceServerClient(url) as server:

        async def client() -> None:
            for length in remaining:
                inputs = audio(rng.normal(0, 0.05, int(length)).astype(np.float32))
                began = time.perf_counter()
                await server.infer(model, inputs)
                latencies.append(1000 * (time.perf_counter() - began))

        began = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(concurrency)))
        return latencies, time.perf_counter() - began, float(lengths.sum()) / RATE


def audio(samples: NDArray[np.float32]) -> list[triton.InferInput]:
    """Return the inputs of a model that takes audio."""
    return tensors({"WAV": samples[None], "WAV_LENS": np.array([[len(samples)]], np.int32)})


def tensors(arrays: Mapping[str, NDArray[Any]]) -> list[triton.InferInput]:
    """Return arrays as the inputs of a request, by name."""
    inputs = []
    for name, array in arrays.items():
        tensor = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(array)
        inputs.append(tensor)
    return inputs


def describe(latencies: list[float], seconds: float, audio_seconds: float) -> str:
    """Return throughput and percentiles in one line."""
    p50, p95, p99 = np.percentile(latencies, [50, 95, 99])
    return (
        f"{len(latencies)} requests in {seconds:.1f} s: {len(latencies) / seconds:.1f} a second,"
        f" {audio_seconds / seconds:.0f} s of audio a second; p50 {p50:.1f} ms, p95 {p95:.1f} ms, p99 {p99:.1f} ms"
    )


def main() -> None:
    """Drive a model and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--url", default="127.0.0.1:8001", help="of gRPC; default: %(default)s")
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--concurrency", type=int, default=8)
    arguments = parser.parse_args()
    driven = drive(arguments.url, arguments.model, arguments.requests, arguments.concurrency)
    print(describe(*asyncio.run(driven)))


if __name__ == "__main__":
    main()
