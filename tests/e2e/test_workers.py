"""Real daemons whose workers die again and again, by somebody else's hand."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from potd.cli.devnet import write_devnet
from potd.cli.fleet import Fleet, free_ports
from potd.config.home import Home

pytestmark = pytest.mark.slow

PATIENCE_S = 120.0
DEATHS = 3  # of each worker
ROUNDS = 30
TASK = f"""
name = "deaths"
[model]
architecture = "mlp"
sizes = [64, 256, 256, 10]
seed = 1
[data]
set = "digits"
[optimiser]
kind = "nesterov"
momentum = 0.9
rate = 0.1
schedule = "constant"
[training]
unit_batch = 128
rounds = {ROUNDS}
window_rounds = 5
miners_min = 1
deadline_seconds_min = 20  # a worker that dies is back long before
deadline_seconds_max = 30
evaluate_every = 0
[rule]
kind = "mean"
[encoding]
kind = "int8"
block = 256
[pay]
per_sample = "0.001"
validators_share = "0.1"
"""


def submit(home: Home, folder: Path) -> str:
    file = folder / "task.toml"
    file.write_text(TASK)
    command = [sys.executable, "-m", "potd", "submit", str(file), "--home", str(home.path), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)["task"])


def its_task(status: dict[str, Any]) -> dict[str, Any]:
    (task,) = status["tasks"]
    return dict(task)


@pytest.mark.parametrize(("kind", "doing"), [("trainer", "training round"), ("arithmetic", "aggregating round")])
def test_a_round_whose_worker_is_killed_at_its_job_is_completed_and_the_daemon_lives(
    tmp_path: Path, kind: str, doing: str
) -> None:
    """One node that is everything, so that nobody else does what it fails to do."""
    with Fleet(write_devnet(tmp_path / "net", 1, 1, free_ports(1))) as fleet:
        (home,) = fleet.homes

        def until(holds: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
            (status,) = fleet.await_all(holds, PATIENCE_S, what)  # fails if the daemon ends
            return status

        fleet.start(home)
        until(lambda one: all(worker["pid"] for worker in one["workers"].values()), "workers")
        submit(home, tmp_path)
        counted = 0
        for death in range(1, DEATHS + 1):
            moving = until(lambda one, past=counted: its_task(one)["counted_rounds"] > past, "another round")  # type: ignore[misc]  # binds the loop's value
            victim = moving["workers"][kind]["pid"]
            os.kill(victim, signal.SIGSTOP)  # so that it is at its job when it dies
            at_it = until(lambda one: doing in one["doing"], f"a {kind} at its job")
            os.kill(victim, signal.SIGKILL)
            counted = its_task(at_it)["counted_rounds"]
            again = until(lambda one, past=counted: its_task(one)["counted_rounds"] > past, "the same round's end")  # type: ignore[misc]  # binds the loop's value
            assert again["workers"][kind]["starts"] == 1 + death
            assert again["workers"][kind]["pid"] != victim
        ended = its_task(until(lambda one: its_task(one)["phase"] == "done", "the end of the task"))
        assert ended["counted_rounds"] == ROUNDS, "no round has lapsed"
        assert fleet.stop() < 5
