"""Questions to libraries, each in a process of its own: a broken library may raise anything, or crash."""

from __future__ import annotations

import json
import sys
from typing import Any

from stages.core import children
from stages.core.errors import UserError

SECONDS = 60  # on a cold disk torch takes ten


def ask(code: str) -> Any:
    """Run Python code whose last line of output is JSON, and return what that says.

    Raises:
        UserError: it failed; has the last line that it printed, or the signal that ended it.
    """
    done = children.run([sys.executable, "-c", code], SECONDS)
    if why := children.why_failed(done):
        raise UserError(why[:200])
    return json.loads(done.stdout.strip().splitlines()[-1])
