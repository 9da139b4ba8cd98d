"""Real daemons, real libp2p, real training, on loopback."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from potd.cli.control import ask
from potd.cli.devnet import write_devnet
from potd.cli.fleet import Fleet, free_ports
from potd.config.genesis import read_genesis
from potd.config.home import Home, public_key, read_key
from potd.node.history import replay
from potd.runtime.journal import open_journal
from potd.trainer.digits import data_set
from potd.wire.genesis import genesis_digest

pytestmark = pytest.mark.slow

ROUNDS = 14
TASK = """
name = "short"
[model]
architecture = "mlp"
sizes = [64, 32, 10]
seed = 1
[data]
set = "digits"
[optimiser]
kind = "nesterov"
momentum = 0.9
rate = 0.3
schedule = "constant"
[training]
unit_batch = 32
rounds = {rounds}
window_rounds = 5
miners_min = 2
deadline_seconds_min = 1
deadline_seconds_max = 20
evaluate_every = 7
[encoding]
kind = "int8"
block = 256
[pay]
per_sample = "0.001"
validators_share = "0.1"
"""


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(write_devnet(tmp_path / "net", 4, 4, free_ports(4))) as fleet:
        for home in fleet.homes:
            fleet.start(home)
        fleet.await_all(lambda one: one["peers"] == 3, 90, "the daemons to know each other")
        yield fleet


def potd(*arguments: str) -> str:
    """A command as its user runs it; fails with what it said."""
    done = subprocess.run([sys.executable, "-m", "potd", *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def submit(home: Home, folder: Path, rounds: int = ROUNDS) -> str:
    file = folder / "task.toml"
    file.write_text(TASK.format(rounds=rounds))
    answer = json.loads(potd("submit", str(file), "--home", str(home.path), "--json"))
    return str(answer["task"])


def task_of(status: dict[str, Any], task: str) -> dict[str, Any]:
    return next((one for one in status["tasks"] if one["task"] == task), {})


def finished(status: dict[str, Any], task: str) -> bool:
    own = task_of(status, task)
    return own.get("phase") == "done" and own.get("measured_round") == own["round"]


def reached(status: dict[str, Any], task: str, number: int) -> bool:
    own = task_of(status, task)
    return bool(own) and (own["round"] >= number or own["phase"] == "done")


def check_chain(home: Home, task: str) -> None:
    """One node's chain follows from genesis, and no unit was made or lost."""
    genesis = read_genesis(home.genesis)
    key = public_key(read_key(home.key))
    with open_journal(home.journal, genesis_digest(genesis), key) as journal:
        blocks = journal.blocks(1, 64 << 20)
    sizes = [shard.samples for shard in data_set().manifest.training]
    history = replay(genesis, blocks, bytes.fromhex(task), sizes)
    assert history.supply_conserved
    assert sum(one.counted for one in history.rounds) == ROUNDS


def test_four_daemons_train_by_hand_and_the_fetched_model_scores_what_the_network_said(
    fleet: Fleet, tmp_path: Path
) -> None:
    first = fleet.homes[0]
    task = submit(first, tmp_path)
    fleet.await_all(lambda one: reached(one, task, 2), 90, "two rounds")
    status: dict[str, Any] = {}
    slowest = 0.0
    for _ in range(20):
        began = time.perf_counter()
        status = ask(fleet.homes[1].path, "status")
        slowest = max(slowest, time.perf_counter() - began)
    assert {"roles", "height", "view", "peers", "doing", "tasks", "balance_micro", "earned_micro"} <= set(status)
    assert slowest < 0.5  # scripts/demo measures it (status_ms_max), the aim is 0.1 s; here others may have the cores
    for home in fleet.homes:
        pid = fleet.pid(home)
        assert "libtorch" not in Path(f"/proc/{pid}/maps").read_text(), "a daemon has torch in it"
    ended = fleet.await_all(lambda one: finished(one, task), 120, "the end of the task")
    assert len({task_of(one, task)["model"] for one in ended}) == 1
    assert all(one["earned_micro"] > 0 for one in ended)
    output = tmp_path / "model.safetensors"
    potd("fetch", "short", "-o", str(output), "--home", str(fleet.homes[2].path))
    weights = load_file(output)
    assert {name: value.shape for name, value in weights.items()} != {}
    said = task_of(ended[0], task)["accuracy"]
    assert accuracy(list(weights.values())) == pytest.approx(said, abs=1e-9)
    assert fleet.stop() < 5
    for home in fleet.homes:
        check_chain(home, task)


def accuracy(weights: list[Any]) -> float:
    """By numpy alone, on the samples that numpy's permutation holds out."""
    from sklearn.datasets import load_digits

    data = load_digits()
    held_out = np.random.RandomState(0).permutation(1797)[1437:]
    layers = sorted((one for one in weights if one.ndim == 2), key=lambda one: -one.shape[1])
    biases = [next(bias for bias in weights if bias.shape == (layer.shape[0],)) for layer in layers]
    hidden = data.data[held_out].astype(np.float32) / 16
    for index, (layer, bias) in enumerate(zip(layers, biases, strict=True)):
        hidden = hidden @ layer.T + bias
        if index + 1 < len(layers):
            hidden = np.maximum(hidden, 0)
    return float((hidden.argmax(axis=1) == data.target[held_out]).mean())


def test_a_daemon_that_is_killed_with_sigkill_comes_back_and_ends_with_the_same_model(
    fleet: Fleet, tmp_path: Path
) -> None:
    chance = random.Random(7)
    task = submit(fleet.homes[0], tmp_path)
    fleet.await_all(lambda one: reached(one, task, 3), 90, "three rounds")
    for home in chance.sample(fleet.homes, 2):  # one after the other: f is one
        number = max(task_of(one, task)["round"] for one in fleet.await_all(lambda one: True, 10, "an answer"))
        time.sleep(chance.random())  # anywhere in a round: there is no event that a kill waits for
        fleet.kill(home)
        fleet.await_all(lambda one, past=number: reached(one, task, past + 2), 90, "the others to go on")  # type: ignore[misc]  # binds the loop's value
        fleet.start(home)
        fleet.await_all(lambda one: one["peers"] == 3, 90, "its return")
    ended = fleet.await_all(lambda one: finished(one, task), 180, "the end of the task")
    assert len({task_of(one, task)["model"] for one in ended}) == 1
    fleet.stop()
    for home in fleet.homes:
        check_chain(home, task)
