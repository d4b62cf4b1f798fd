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
