"""The arithmetic worker: `python -m potd.arithmetic FD BLOBS_DIR`, a child of the daemon at one end of a socketpair."""

from __future__ import annotations

import os
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

# Before numpy is imported: one thread. Elementwise integers gain nothing from more, and the rig's cores are training.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
    os.environ[_name] = "1"

import numpy as np  # noqa: E402  (the threads come first)

from potd.arithmetic.exercise import exercise  # noqa: E402  (it imports numpy)
from potd.arithmetic.work import JOBS, answer  # noqa: E402  (it imports numpy)
from potd.wire.frames import read_frame, write_frame  # noqa: E402  (stands with the others)
from potd.wire.jobs import Ready  # noqa: E402  (stands with the others)


def serve(connection: socket.socket, folder: Path) -> None:
    """Greet, then answer jobs in order until the other end closes. Raises OSError or Malformed if it does worse."""
    write_frame(connection, Ready("arithmetic", "cpu", np.__version__, exercise()))
    while (job := read_frame(connection, *JOBS)) is not None:
        write_frame(connection, answer(job, folder))


def main(arguments: list[str]) -> int:
    if len(arguments) != 2 or not arguments[0].isdecimal():
        print("usage: python -m potd.arithmetic FD BLOBS_DIR", file=sys.stderr)
        return 2
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the daemon, which then closes our socket
    # If the daemon is gone in the middle of something, nobody is left to answer.
    with socket.socket(fileno=int(arguments[0])) as connection, suppress(BrokenPipeError, ConnectionResetError):
        serve(connection, Path(arguments[1]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
