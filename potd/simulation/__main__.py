"""`python -m potd.simulation`, which `scripts/sim` runs."""

from __future__ import annotations

import os
import sys


def start() -> int:
    """Each process computes on one thread: they share the cores among themselves. To be said before numpy is loaded."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    from potd.simulation.command import main

    return main()


if __name__ == "__main__":
    sys.exit(start())
