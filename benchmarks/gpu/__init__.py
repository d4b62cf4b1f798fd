"""What a CUDA device gives: parity, latency, throughput, memory and accuracy of every family, in one go of minutes.

`python -m benchmarks.gpu` measures what lies in `artifacts/`, and the large graphs that `benchmarks.gpu.pack` left as
skeletons. It needs no network, and writes benchmarks/gpu/<device>.md and the same as JSON after every part.
"""
