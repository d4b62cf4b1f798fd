"""Stage `portable`: the simplified graphs rewritten in operators of the ONNX standard alone.

For runtimes that lack ONNX Runtime's own operators: other ones, and older versions of it. FunASR's C++ server has
1.14.0, which knows no MultiHeadAttention and at times loses shapes that are computed.
"""

from __future__ import annotations

from collections.abc import Sequence

from stages import optimize
from stages.core import params, plan
from stages.core.errors import entrypoint, key_from
from stages.rewrites import copied_sizes

NOT_STANDARD = ("attention", "gelu", "strided_conv")  # the rewrites that make operators of ONNX Runtime's own
STANDARD = {name: rewrite for name, rewrite in optimize.REWRITES.items() if name not in NOT_STANDARD} | {
    "copied_sizes": copied_sizes.rewrite
}


def main(argv: Sequence[str]) -> None:
    """Run `python -m stages.portable MODEL-VARIANT`."""
    p = params.load()
    lines = plan.derive(p).portable
    optimize.rewrite_graphs(lines[key_from(argv, "portable", lines)], "portable", p.parity.tolerance, STANDARD)


if __name__ == "__main__":
    entrypoint(main)
