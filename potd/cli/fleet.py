"""Several daemons of one machine as child processes: starting, killing, asking and stopping them."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from potd.cli.control import ask
from potd.cli.exits import Exit, Failure
from potd.config.home import Home

STOP_S = 10.0  # a daemon stops in half of it
POLL_S = 0.1


def free_ports(count: int) -> int:
    """The first of `count` loopback ports in a row that nobody listens on just now."""
    for first in range(20_000, 60_000, count):
        try:
            with ExitStack() as taken:
                for port in range(first, first + count):
                    probe = taken.enter_context(socket.socket())
                    probe.bind(("127.0.0.1", port))
                return first
        except OSError:
            continue
    raise Failure(Exit.CONFIGURATION, f"no {count} free ports in a row on 127.0.0.1")


class Fleet:
    """The daemons of some homes. Leaving the block stops those that still run."""

    def __init__(self, homes: Sequence[Home], *, quiet: bool = True) -> None:
        self.homes = tuple(homes)
        self._output = subprocess.DEVNULL if quiet else None
        self._daemons: dict[Home, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, home: Home) -> None:
        """Begin a daemon, in a session of its own, so that Ctrl-C reaches only us."""
        command = [sys.executable, "-m", "potd", "start", "--home", str(home.path)]
        self._daemons[home] = subprocess.Popen(
            command, start_new_session=True, stdout=self._output, stderr=self._output
        )

    def running(self) -> int:
        return len(self._daemons)

    def ended(self) -> list[tuple[Home, int]]:
        """Those who have ended by themselves since the last question, with their exit status."""
        found = [(home, daemon.returncode) for home, daemon in self._daemons.items() if daemon.poll() is not None]
        for home, _ in found:
            del self._daemons[home]
        return found

    def pid(self, home: Home) -> int:
        return self._daemons[home].pid

    def kill(self, home: Home) -> None:
        """SIGKILL: it has no chance to put anything in order."""
        daemon = self._daemons.pop(home)
        daemon.kill()
        daemon.wait()

    def stop(self) -> float:
        """SIGTERM to all; how many seconds the last one took."""
        began = time.monotonic()
        for daemon in self._daemons.values():
            daemon.send_signal(signal.SIGTERM)
        for daemon in self._daemons.values():
            try:
                daemon.wait(STOP_S)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        self._daemons.clear()
        return time.monotonic() - began

    def check(self) -> None:
        """Raises Failure if a daemon has ended by itself."""
        for home, status in self.ended():
            raise Failure(
                Exit.CONFIGURATION, f"the daemon of {home.path} ended with status {status}; its log is {home.log}"
            )

    def status(self, home: Home) -> dict[str, Any] | None:
        """Its status, or None while it does not answer."""
        try:
            return ask(home.path, "status", patience_s=5.0)
        except (Failure, OSError):
            return None

    def await_all(self, holds: Callable[[dict[str, Any]], bool], patience_s: float, what: str) -> list[dict[str, Any]]:
        """Wait until every running daemon answers with a status of which this holds. Raises Failure if none comes."""
        end = time.monotonic() + patience_s
        while True:
            self.check()
            found = [self.status(home) for home in self._daemons]
            answers = [one for one in found if one is not None]
            if len(answers) == len(found) and all(holds(one) for one in answers):
                return answers
            if time.monotonic() > end:
                raise Failure(Exit.TIMEOUT, f"after {patience_s:.0f} s still waiting for {what}")
            time.sleep(POLL_S)
