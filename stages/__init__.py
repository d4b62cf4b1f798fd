"""Kiln: from FunASR checkpoints to measured, gated, deployable graphs and engines."""

import os

# Libraries of the lock that tell their makers of their use. Every process of Kiln imports this package before any of
# them, and what it starts inherits it. ONNX Runtime's function for it comes too late: importing it starts the report.
QUIET = {
    "ORT_DISABLE_TELEMETRY": "1",
    "DVC_NO_ANALYTICS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
}
os.environ |= QUIET

# A thread of torch that waits for another sleeps instead of keeping a core busy: where more runs than the machine has
# cores, as in a first build, pruning took a sixth of the CPU time. It is read when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
