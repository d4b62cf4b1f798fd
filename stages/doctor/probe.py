"""Questions to libraries, each in a process of its own: a broken library may raise anything, or crash."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from stages.core.errors import UserError

SECONDS = 60  # on a cold disk torch takes ten


def ask(code: str) -> Any:
    """Run Python code whose last line of output is JSON, and return what that says.

    Raises:
        UserError: it failed; has the last line that it printed, or the signal that ended it.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired as e:
        raise UserError(f"no answer in {SECONDS} s") from e
    if done.returncode < 0:
        raise UserError(f"died of signal {-done.returncode}")
    if done.returncode:
        raise UserError((done.stderr.strip().splitlines() or ["no message"])[-1][:200])
    return json.loads(done.stdout.strip().splitlines()[-1])
