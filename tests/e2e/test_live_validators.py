"""Real daemons, real libp2p, real training: validators come, go and change their keys, by nothing but the commands."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from potd.cli.control import ask
from potd.cli.devnet import write_devnet
from potd.cli.fleet import Fleet, free_ports
from potd.config.genesis import read_genesis
from potd.config.home import Home, public_key, read_account, read_key
from potd.node.history import replay
from potd.runtime.journal import open_journal
from potd.trainer.digits import data_set
from potd.wire.blocks import Block
from potd.wire.genesis import genesis_digest
from tests.e2e.test_devnet import potd, submit, task_of

pytestmark = pytest.mark.slow

PATIENCE_S = 120.0
ROUNDS = 5_000  # more than there is time for


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    port = free_ports(5)
    homes = write_devnet(tmp_path / "net", 4, 4, port + 1)
    first = json.loads(potd("key", "--json", "--home", str(homes[0].path)))["peer_id"]
    newcomer = tmp_path / "net" / "node5"
    potd(
        "init", "--home", str(newcomer), "--genesis", str(homes[0].genesis), "--device", "cpu",
        "--role", "validator", "--role", "miner", "--listen", f"/ip4/127.0.0.1/tcp/{port}",
        "--bootstrap", f"/ip4/127.0.0.1/tcp/{port + 1}/p2p/{first}",
    )  # fmt: skip
    with Fleet((*homes, Home(newcomer))) as fleet:
        for home in homes:
            fleet.start(home)
        fleet.await_all(lambda one: one["peers"] == 3, PATIENCE_S, "the daemons to know each other")
        yield fleet


def until(home: Home, fleet: Fleet, holds: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
    """The status of one node, once this holds of it."""
    account = read_account(home).hex()
    answers = fleet.await_all(lambda one: one["account"] != account or holds(one), PATIENCE_S, what)
    return next(one for one in answers if one["account"] == account)


def trains_on(fleet: Fleet, task: str, rounds: int = 3) -> int:
    """How many rounds have counted, after so many more at every node."""
    before = max(counted(one, task) for one in fleet.await_all(lambda one: True, 30, "an answer"))
    reached = fleet.await_all(lambda one: counted(one, task) >= before + rounds, PATIENCE_S, "more rounds")
    return max(counted(one, task) for one in reached)


def counted(status: dict[str, Any], task: str) -> int:
    return int(task_of(status, task).get("counted_rounds", 0))


def earns_on(home: Home, fleet: Fleet, what: str) -> None:
    """It mines, and its work counts."""
    before = int(ask(home.path, "status")["earned_micro"])
    until(home, fleet, lambda one: one["earned_micro"] > before, what)


def blocks(home: Home) -> tuple[Block, ...]:
    with open_journal(home.journal, genesis_digest(read_genesis(home.genesis)), public_key(read_key(home.key))) as kept:
        return kept.blocks(1, 256 << 20)


def test_validators_come_go_and_rotate_by_the_commands_while_training_goes_on(fleet: Fleet, tmp_path: Path) -> None:
    first, second, third, fourth, fifth = fleet.homes
    task = submit(first, tmp_path, ROUNDS)
    rounds = [trains_on(fleet, task)]

    # One comes: it knows genesis and one address.
    fleet.start(fifth)
    came = read_account(fifth).hex()
    until(fifth, fleet, lambda one: one["peers"] == 4, "the newcomer to know everybody by one of them")
    potd("transfer", came, "200000", "--home", str(first.path))
    until(fifth, fleet, lambda one: one["balance_micro"] >= 2 * 10**11, "the payment")
    assert "standing" in potd("validators", "stand", "--home", str(fifth.path))
    for home in (first, second, third):
        until(home, fleet, lambda _: came[:8] in potd("validators", "--home", str(first.path)), "the candidate")
        potd("validators", "back", came, "--home", str(home.path))
    status = until(fifth, fleet, lambda one: "5" in one["seat"], "the seat of the newcomer")
    assert status["seat"] == "5 of 5"
    assert status["peers"] == 4
    rounds.append(trains_on(fleet, task))

    # One goes, and follows.
    potd("validators", "resign", "--home", str(fourth.path))
    status = until(fourth, fleet, lambda one: one["seat"].startswith("ended at height"), "the end of its seat")
    assert "view" not in status
    assert "locked" in potd("validators", "--home", str(fourth.path))
    rounds.append(trains_on(fleet, task))
    earns_on(fourth, fleet, "the pay of one that has no seat any more")

    # One changes its key, and needs nobody's hand for it.
    old, account, process = public_key(read_key(third.key)), read_account(third), fleet.pid(third)
    said = potd("validators", "rotate", "--home", str(third.path))
    new = public_key(read_key(third.key_next))
    assert new.hex() in said
    status = until(third, fleet, lambda one: one["key"] == new.hex(), "the new key")
    assert (status["account"], fleet.pid(third)) == (account.hex(), process)
    assert (public_key(read_key(third.key)), public_key(read_key(third.key_old))) == (new, old)
    status = until(third, fleet, lambda one: one["peers"] == 4 and "silent" not in one["consensus"], "its return")
    assert status["seat"].endswith("of 4")
    earns_on(third, fleet, "the pay of one with a new key")
    rounds.append(trains_on(fleet, task, 10))

    assert rounds == sorted(set(rounds))
    ended = fleet.await_all(lambda one: True, 10, "an answer")
    # Those who had the old peer id in their bootstrap list dial it in vain; nobody else is refused anything.
    assert {reason for one in ended for reason in one["refused"]} <= {"connection: handshake failed"}
    assert len({tuple(one["validators"]) for one in ended}) == 1
    fleet.stop()
    chain = blocks(second)
    history = replay(
        read_genesis(second.genesis), chain, bytes.fromhex(task), [one.samples for one in data_set().manifest.training]
    )
    assert history.supply_conserved
    assert sum(one.counted for one in history.rounds) >= rounds[-1]
    seats = {seat.account: seat.key for seat in history.ledger.validators()}
    assert seats == {read_account(home): public_key(read_key(home.key)) for home in (first, second, third, fifth)}
    certificates = [one for home in fleet.homes for one in blocks(home)]
    voted = {signer.key for one in certificates for signer in one.attestations}
    assert {new, public_key(read_key(fifth.key))} <= voted
