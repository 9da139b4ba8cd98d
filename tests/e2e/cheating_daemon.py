"""`python -m tests.e2e.cheating_daemon --home HOME`: the daemon as it is, with a trainer that cheats."""

from __future__ import annotations

from collections.abc import Sequence

from potd.cli.daemon import start
from potd.runtime import daemon, workers


def command(kind: str, module: str, arguments: Sequence[str] = (), nice: int = 0) -> workers.WorkerCommand:
    module = "tests.e2e.cheating_trainer" if module == "potd.trainer" else module
    return workers.WorkerCommand(kind, module, arguments, nice)


if __name__ == "__main__":
    vars(daemon)["WorkerCommand"] = command
    start()
