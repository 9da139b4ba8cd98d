"""`python -m tests.bench`, which `scripts/bench` runs."""

from __future__ import annotations

import os
import sys


def start() -> int:
    """Processor time is to be that of one thread, unless the caller says otherwise before numpy is loaded."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    from tests.bench.command import main

    return main()


if __name__ == "__main__":
    sys.exit(start())
