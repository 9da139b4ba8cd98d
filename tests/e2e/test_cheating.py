"""A daemon that cheats, among real ones: what it loses, and what is told of it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from potd.cli.control import ask
from potd.cli.devnet import write_devnet
from potd.cli.fleet import Fleet, free_ports
from potd.config.genesis import read_genesis
from potd.config.home import Home, public_key, read_key
from potd.node.history import replay
from potd.runtime.journal import open_journal
from potd.trainer.digits import data_set
from potd.wire.genesis import genesis_digest
from tests.e2e.test_devnet import potd, submit, task_of

pytestmark = pytest.mark.slow

ROUNDS = 120  # nobody cheats through so many but once in 60,000 networks: 0.9^104


@pytest.fixture
def network(tmp_path: Path) -> Iterator[tuple[Fleet, Home]]:
    """Four validators that mine, and a fifth node that mines and saves half of its work."""
    *honest, cheat = write_devnet(tmp_path / "net", 5, 4, free_ports(5))
    with Fleet(honest) as fleet:
        for home in honest:
            fleet.start(home)
        command = [sys.executable, "-m", "tests.e2e.cheating_daemon", "--home", str(cheat.path)]
        cheating = subprocess.Popen(
            command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            fleet.await_all(lambda one: one["peers"] == 4, 90, "the daemons to know each other")
            yield fleet, cheat
        finally:
            cheating.terminate()
            cheating.wait(15)


def test_a_miner_that_does_half_of_its_work_is_slashed_and_everybody_can_read_why(
    network: tuple[Fleet, Home], tmp_path: Path
) -> None:
    fleet, cheat = network
    first = fleet.homes[0]
    before = ask(cheat.path, "balance")
    task, account = submit(first, tmp_path, ROUNDS), before["account"]
    done = fleet.await_all(lambda one: task_of(one, task).get("phase") == "done", 300, "the end of the task")
    assert all(task_of(one, task)["accuracy"] > 0.9 for one in done)

    told = [why(first, task, number, account) for number in range(ROUNDS)]
    slashed = [number for number, one in enumerate(told) if one and one[0]["standing"] == "slashed"]
    assert slashed
    proved = max(slashed, key=lambda number: len(bad(told[number][0])))
    voices = bad(told[proved][0])
    assert len(voices) >= 3, "a quorum of four"
    assert all(one["distance"] > 0.01 > told[proved][0]["tolerance"] for one in voices)
    assert any(one["kind"] == "verdict" for one in voices)
    assert all(one[0]["pay_micro"] == 0 for number, one in enumerate(told) if number in slashed)
    assert not any(told[slashed[-1] + 1 :]), "it may not come back"
    story = potd("why", task, str(proved), account, "--home", str(first.path))
    assert "slashed: its miner has lost its bond and all pay that had not vested" in story.splitlines()

    bond = 20 * 32 * 900  # of as many contributions, of 32 samples at 900 micro-units
    after = ask(cheat.path, "balance")
    assert after["bonds_micro"] == 0
    assert before["balance_micro"] - after["balance_micro"] >= bond
    for home in fleet.homes:
        own = ask(home.path, "balance")
        assert own["bonds_micro"] == bond
        assert not any(
            one["standing"] == "slashed" for number in slashed for one in why(first, task, number, own["account"])
        )
    assert supply_conserved(first, task)


def why(home: Home, task: str, number: int, account: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = ask(home.path, "why", task=task, round=number, miner=account)["contributions"]
    return found


def bad(contribution: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for one in contribution["voices"] if one["status"] == "bad"]


def supply_conserved(home: Home, task: str) -> bool:
    genesis = read_genesis(home.genesis)
    with open_journal(home.journal, genesis_digest(genesis), public_key(read_key(home.key))) as journal:
        blocks = journal.blocks(1, 64 << 20)
    sizes = [shard.samples for shard in data_set().manifest.training]
    return replay(genesis, blocks, bytes.fromhex(task), sizes).supply_conserved
