"""Operations on their way into the ledger: awaited when it is their turn, settled when they can come no more."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from potd.consensus.events import Awaited, Settled
from potd.ledger.accounts import NONCES_AHEAD, why_not
from potd.ledger.apply import execute
from potd.ledger.state import Ledger, genesis_ledger
from potd.node.agenda import AGAIN_TICKS, OPERATIONS_MAX, Agenda, operation_key
from potd.node.events import Publish, Send
from potd.node.operations import Due, Operations
from potd.wire.blocks import Batch, Record, record_digest
from potd.wire.codec import encode
from potd.wire.envelope import Signed, Signer, Verified
from potd.wire.genesis import Allotment, Genesis, Parameters, genesis_digest
from potd.wire.ids import NOTHING, account_id, digest
from potd.wire.operations import Operation, Transfer

KEYS = [Signer(bytes([index + 1]) * 32, NOTHING).key for index in range(3)]
PARAMETERS = Parameters(seat_bond_micro=0)
GENESIS = Genesis("test", 1, 0, (KEYS[0],), tuple(Allotment(key, 10**6) for key in KEYS), PARAMETERS)
SIGNERS = [Signer(bytes([index + 1]) * 32, genesis_digest(GENESIS)) for index in range(3)]
ACCOUNTS = [account_id(key) for key in KEYS]


def transfer(who: int, nonce: int, amount: int = 1, to: bytes = digest("to")) -> Verified[Operation]:
    return SIGNERS[who].verified(Transfer(ACCOUNTS[who], nonce, to, amount, ""))


def key(message: Verified[Operation]) -> str:
    return operation_key(record_digest(message.signed))


@dataclass
class Desk:
    """What waits at one node, and its ledger."""

    ledger: Ledger = field(default_factory=lambda: genesis_ledger(GENESIS))
    agenda: Agenda = field(default_factory=Agenda)

    def __post_init__(self) -> None:
        self.operations = Operations(SIGNERS[0], ACCOUNTS[0], self.agenda)

    def take(self, message: Verified[Operation], ours: bool = False) -> list[Due]:
        return self.operations.take(self.ledger, message, 0, ours, ())[1]

    def execute(self, *records: Record) -> list[Due]:
        done = execute(self.ledger, Batch(records))
        self.ledger = done.ledger
        self.agenda.executed([record_digest(one) for one in records])
        self.operations.executed(done.receipts, done.changes)
        return self.operations.clear(self.ledger)


def test_the_next_operation_of_an_account_is_awaited_when_the_one_before_is_executed() -> None:
    desk = Desk()
    first, second, third = (transfer(1, nonce) for nonce in range(3))
    assert [desk.take(one) for one in (second, third, first)] == [[], [], [Awaited(key(first))]]
    assert desk.agenda.take(1, desk.ledger.nonce) == Batch((first.signed,))
    assert desk.execute(first.signed) == [Settled(key(first)), Awaited(key(second))]
    assert desk.agenda.take(512, desk.ledger.nonce) == Batch((second.signed, third.signed))


def test_an_operation_whose_turn_has_come_by_another_hand_is_given_out() -> None:
    desk = Desk()
    desk.take(transfer(1, 1))
    assert desk.agenda.take(512, desk.ledger.nonce) is None
    desk.execute(transfer(1, 0).signed)
    assert desk.agenda.take(512, desk.ledger.nonce) == Batch((transfer(1, 1).signed,))


def test_what_others_do_leaves_an_account_alone() -> None:
    desk = Desk()
    desk.take(transfer(1, 0))
    assert desk.execute(transfer(2, 0).signed) == []
    assert desk.execute() == []


def test_an_operation_whose_place_another_took_is_settled() -> None:
    """One that was ordered without having waited here."""
    desk = Desk()
    waiting = transfer(1, 0)
    desk.take(waiting, ours=True)
    assert desk.execute(transfer(1, 0, amount=5).signed) == [Settled(key(waiting))]
    assert desk.operations.receipt(record_digest(waiting.signed)) == "nonce 0 where 1 is due"
    assert desk.agenda.operations == {}


def test_an_operation_that_its_account_cannot_pay_any_more_is_settled() -> None:
    desk = Desk()
    rich, poor = transfer(1, 0, amount=10**6 - 3_000), transfer(1, 1)
    desk.take(rich)
    desk.take(poor)
    assert desk.execute(rich.signed) == [Settled(key(rich)), Settled(key(poor))]


def test_a_height_costs_one_look_for_each_account_however_much_it_has_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is behind has many of each account waiting, and as many heights to catch up."""
    desk = Desk()
    waiting = [transfer(1, nonce) for nonce in range(NONCES_AHEAD)]
    for one in waiting:
        desk.take(one)
    looks: list[Signed] = []

    def look(ledger: Ledger, signed: Signed) -> str:
        looks.append(signed)
        return why_not(ledger, signed)

    monkeypatch.setattr("potd.node.operations.why_not", look)
    assert desk.execute(waiting[0].signed) == [Settled(key(waiting[0])), Awaited(key(waiting[1]))]
    assert looks == [one.signed for one in waiting[:2]]


def test_money_that_comes_is_noticed() -> None:
    """By an account that does nothing itself: every change of an account is looked at."""
    desk = Desk()
    waiting = transfer(1, 0)
    desk.take(waiting)
    assert desk.execute(transfer(2, 0, to=ACCOUNTS[1]).signed) == [Awaited(key(waiting))]


def test_an_operation_that_came_before_its_turn_keeps_its_place_and_has_no_receipt() -> None:
    desk = Desk()
    early = transfer(1, 1)
    desk.take(early)
    assert desk.execute(early.signed) == []
    assert desk.operations.receipt(record_digest(early.signed)) is None
    assert desk.execute(transfer(1, 0).signed) == [Awaited(key(early))]


def test_what_waits_long_is_said_again_forwarded_and_awaited_anew() -> None:
    """Anew, since who decides may be others than when it came."""
    desk = Desk()
    own, early = transfer(0, 0), transfer(1, 1)
    desk.take(own, ours=True)
    desk.take(early)
    quiet = [desk.operations.again(desk.ledger, tick, KEYS[2]) for tick in range(1, AGAIN_TICKS - 1)]
    assert quiet == [([], [])] * (AGAIN_TICKS - 2)
    effects, due = desk.operations.again(desk.ledger, AGAIN_TICKS - 1, KEYS[2])
    assert due == [Awaited(key(own))]
    data = encode(own.signed)
    assert effects == [Publish("operations", data), Send(KEYS[2], data)], (
        "what is ahead of its turn costs nobody a byte"
    )


def test_what_has_become_impossible_is_settled_when_it_would_be_said_again() -> None:
    """Whatever made it so: nobody waits for it longer, and nobody is blamed."""
    desk = Desk()
    waiting = transfer(0, 0)
    desk.take(waiting, ours=True)
    moved_on = execute(desk.ledger, Batch((transfer(0, 0, amount=5).signed,))).ledger
    assert desk.operations.again(moved_on, AGAIN_TICKS - 1, KEYS[2]) == ([], [Settled(key(waiting))])
    assert desk.agenda.operations == {}


def test_the_next_nonce_comes_behind_what_waits_without_a_gap() -> None:
    desk = Desk()
    for nonce in (0, 1, 3):
        desk.take(transfer(0, nonce))
    assert desk.operations.next_nonce(desk.ledger) == 2


def test_whoever_waits_for_nonces_that_never_come_shuts_out_nobody() -> None:
    desk = Desk()
    for nonce in range(1, OPERATIONS_MAX + 1):
        assert desk.agenda.add_operation(transfer(1, nonce), 0, ours=False) == ""
    assert desk.take(transfer(1, NONCES_AHEAD + 5)) == []
    assert desk.take(transfer(2, 1)) == [], "one that has to wait itself displaces none"
    assert ACCOUNTS[2] not in {one.message.body.account for one in desk.agenda.operations.values()}
    good = transfer(2, 0)
    assert desk.take(good) == [Awaited(key(good))]
