"""Real daemons: a validator whose home is put back from a copy says so, and votes again when it may."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from potd.cli.control import ask
from potd.cli.devnet import write_devnet
from potd.cli.fleet import Fleet, free_ports
from potd.config.home import Home
from potd.wire.genesis import Parameters

pytestmark = pytest.mark.slow


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(write_devnet(tmp_path / "net", 4, 4, free_ports(4))) as fleet:
        for home in fleet.homes:
            fleet.start(home)
        fleet.await_all(lambda one: one["peers"] == 3, 90, "the daemons to know each other")
        yield fleet


def pay(home: Home, times: int) -> int:
    """So many heights more; the last one."""
    to = bytes(range(32)).hex()
    return max(int(ask(home.path, "transfer", to=to, amount_micro=1, patience_s=30)["height"]) for _ in range(times))


def test_a_home_that_was_put_back_from_a_copy_says_so_and_votes_again(fleet: Fleet, tmp_path: Path) -> None:
    payer, victim = fleet.homes[0], fleet.homes[3]
    height = pay(payer, 3)
    fleet.await_all(lambda one: one["height"] >= height, 60, "everybody to have executed it")
    fleet.kill(victim)
    shutil.copytree(victim.path, tmp_path / "copy", ignore=shutil.ignore_patterns("*.sock"))
    fleet.start(victim)
    fleet.await_all(lambda one: one["peers"] == 3, 90, "its return")
    height = pay(payer, 3)
    fleet.await_all(lambda one: one["height"] >= height and one["stable"] >= height, 60, "everybody to be level")
    fleet.kill(victim)
    for file in victim.path.glob("journal.sqlite*"):
        file.unlink()
    for file in (tmp_path / "copy").glob("journal.sqlite*"):
        shutil.copy(file, victim.path / file.name)
    fleet.start(victim)
    fleet.await_all(lambda one: one["peers"] == 3 and one["height"] >= height, 90, "its second return")
    window = Parameters().window_heights  # its other votes, if there were any, lie between its last watermarks
    said = f"silent until height {height + window}: this home was restored from a backup"
    assert said in victim.log.read_text()
    pay(payer, window)
    fleet.await_all(lambda one: "silent" not in one["consensus"], 60, "its votes")
    fleet.kill(fleet.homes[1])  # without it nobody can do without the victim's vote
    pay(payer, 2)
