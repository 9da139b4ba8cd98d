"""Exit statuses, and failures that end a command with one."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum


class Exit(IntEnum):
    """What a command's exit status says. Scripts may rely on these."""

    OK = 0
    CONFIGURATION = 1  # a file, an option's value or this machine is not as it must be
    USAGE = 2  # the command line makes no sense
    NOT_RUNNING = 3  # no daemon answers in this home
    REFUSED = 4  # the daemon, the ledger or the network said no
    TIMEOUT = 5  # no answer in time


class Failure(Exception):
    """Ends the command with one sentence, or a list of them, and an exit status."""

    def __init__(self, code: Exit, problems: str | Iterable[str]) -> None:
        self.code = code
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))
