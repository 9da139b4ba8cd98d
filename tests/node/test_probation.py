"""A miner without money: it trains, stands in no sum, and earns its bond first."""

from __future__ import annotations

from pathlib import Path

from potd.ledger.entries import Miner
from potd.node import events as ev
from potd.simulation.world import MICRO, World
from potd.wire.ids import account_id, digest
from potd.wire.operations import Transfer
from potd.wire.rounds import Outcome


def test_who_has_no_money_trains_on_probation_until_its_bond_is_made_up(tmp_path: Path) -> None:
    world = World(tmp_path, miners=1, fee_per_byte_micro=0, bond_rounds=3)
    poor = world.keys[4]
    account = account_id(poor)
    spent = world.members[poor].signer.sign(Transfer(account, 0, digest("somebody"), MICRO, ""))
    world.input(poor, ev.OperationAsked(spent))
    world.run(lambda: world.node(world.keys[0]).ledger.nonce(account) == 1, 200)
    world.submit(rounds=60)

    def miner() -> Miner | None:
        return world.task(world.keys[0]).miner(account)

    seen: list[int] = []

    def counted() -> bool:
        """Every outcome of its contributions so far."""
        ledger, task = world.node(world.keys[0]).ledger, world.task(world.keys[0])
        rows = [row for past in ledger.pasts(task.id) for row in past.rows if row.miner == account]
        seen[:] = [row.outcome for row in rows]
        return Outcome.COUNTED in seen

    world.run(lambda: (known := miner()) is not None and known.probation, 600)
    world.run(counted, 2_000)
    assert seen == [Outcome.PROBATION] * 3 + [Outcome.COUNTED]
    known = miner()
    assert known is not None
    assert not known.probation
    bond = world.node(world.keys[0]).ledger.bond(world.task(world.keys[0]).id, account)
    assert bond is not None
    assert bond.amount_micro == bond.required_micro
    world.check()
