"""Operations: who may ask, once, and for what fee."""

from __future__ import annotations

from dataclasses import replace

from potd.ledger.accounts import fee_micro, why_not
from potd.ledger.entries import Account
from potd.ledger.state import supply
from potd.wire.codec import encode
from potd.wire.consensus import Commit
from potd.wire.envelope import Signed, Signer
from potd.wire.ids import NOTHING, account_id, digest, short
from potd.wire.operations import Accuse, Transfer
from tests.ledger.world import BALANCE, BOND, VALIDATORS, World, blob


def test_a_transfer_moves_the_amount_and_pays_the_validators_by_the_byte() -> None:
    world = World()
    signed = world.transfer(5, world.ids[6], 1000)
    fee = 10 * len(encode(signed))
    assert world.reasons(signed) == [""]
    assert world.account(5) == Account(world.people[5].key, world.people[5].key, BALANCE - 1000 - fee, 1)
    assert world.account(6).balance_micro == BALANCE + 1000
    assert [world.account(i).balance_micro - BALANCE for i in range(VALIDATORS)] == [fee // 4] * 4
    assert world.ledger.globals().fees_micro == fee % 4


def test_fees_that_do_not_divide_wait_until_they_do() -> None:
    world = World(fee_per_byte_micro=1)
    taken = 0
    for i in range(7):
        signed = world.transfer(5, world.ids[6], 1 + 1000 * i)
        taken += len(encode(signed))
        world.execute(signed)
        assert world.ledger.globals().fees_micro == taken % VALIDATORS
        assert world.account(0).balance_micro == BALANCE + taken // VALIDATORS


def test_an_operation_is_executed_once() -> None:
    world = World()
    signed = world.transfer(5, world.ids[6], 1000)
    assert world.reasons(signed, signed) == ["", "nonce 0 where 1 is due"]
    before = world.account(5)
    assert world.reasons(signed) == ["nonce 0 where 1 is due"]
    assert world.account(5) == before


def test_operations_of_one_account_go_in_the_order_of_their_nonces() -> None:
    world = World()
    first, second = (world.transfer(5, world.ids[6], 1000, nonce=nonce) for nonce in (0, 1))
    assert world.reasons(second, first) == ["nonce 1 where 0 is due", ""]
    assert world.reasons(second) == [""]


def test_what_cannot_be_done_costs_its_fee_and_its_nonce() -> None:
    world = World()
    signed = world.transfer(5, world.ids[6], 2 * BALANCE)
    (reason,) = world.reasons(signed)
    assert reason.startswith("a transfer of 2000000000 micro-units, and a balance of ")
    fee = fee_micro(world.ledger.parameters(), signed)
    assert (world.account(5).balance_micro, world.account(5).nonce) == (BALANCE - fee, 1)
    assert world.account(6).balance_micro == BALANCE


def test_a_strangers_key_moves_nothing() -> None:
    world = World()
    theft = world.people[6].sign(Transfer(world.ids[5], 0, world.ids[6], 1000, ""))
    assert world.reasons(theft) == [f"key {short(world.people[6].key)} is not one of account {short(world.ids[5])}"]
    assert (world.account(5).balance_micro, world.account(6).balance_micro) == (BALANCE, BALANCE)


def test_an_account_gets_its_keys_when_it_first_speaks() -> None:
    world = World()
    newcomer = Signer(bytes(31) + b"\x01", world.ledger.network)
    name = account_id(newcomer.key)
    world.execute(world.transfer(5, name, 50_000))
    assert world.ledger.account(name) == Account(NOTHING, NOTHING, 50_000, 0)

    body = Transfer(name, 0, world.ids[5], 1000, "")
    assert world.reasons(world.people[6].sign(body)) == [
        f"key {short(world.people[6].key)} is not the one that account {short(name)} is made from"
    ]
    signed = newcomer.sign(body)
    fee = fee_micro(world.ledger.parameters(), signed)
    assert world.reasons(signed) == [""]
    assert world.ledger.account(name) == Account(newcomer.key, newcomer.key, 49_000 - fee, 1)


def test_who_cannot_pay_the_fee_leaves_no_trace() -> None:
    world = World()
    pauper = Signer(bytes(32), world.ledger.network)
    name = account_id(pauper.key)
    (reason,) = world.reasons(pauper.sign(Transfer(name, 0, world.ids[5], 1, "")))
    assert reason.startswith("a fee of ")
    assert reason.endswith(" micro-units, and a balance of 0")
    assert world.ledger.account(name) is None


def test_a_transfer_to_oneself_costs_the_fee_alone() -> None:
    world = World()
    signed = world.transfer(5, world.ids[5], 1000)
    assert world.reasons(signed) == [""]
    assert world.account(5).balance_micro == BALANCE - fee_micro(world.ledger.parameters(), signed)


def test_transfers_of_nothing_and_to_nobody_are_refused() -> None:
    world = World()
    assert world.reasons(world.transfer(5, world.ids[6], 0)) == ["nothing to transfer"]
    assert world.reasons(world.transfer(5, NOTHING, 1)) == ["a transfer to nobody"]


def test_a_signed_record_that_is_no_operation_is_refused() -> None:
    world = World()
    signed = world.people[5].sign(blob("not an operation"))
    garbage = replace(signed, payload=b"\xc1")
    assert world.reasons(signed, garbage) == ["not an operation", "not an operation"]
    assert supply(world.ledger) == 8 * BALANCE + 4 * BOND


def test_what_waits_for_a_batch_may_be_early_but_neither_late_nor_poor_nor_a_strangers() -> None:
    world = World()

    def transfer(nonce: int) -> Signed:
        return world.transfer(5, world.ids[6], 1000, nonce=nonce)

    assert why_not(world.ledger, transfer(0)) == ""
    assert why_not(world.ledger, transfer(64)) == ""
    assert why_not(world.ledger, transfer(65)) == "nonce 65 is far ahead of 0"
    world.execute(transfer(0))
    assert why_not(world.ledger, transfer(0)) == "nonce 0 where 1 is due"
    theft = world.people[6].sign(Transfer(world.ids[5], 3, world.ids[6], 1000, ""))
    assert why_not(world.ledger, theft).startswith("key ")
    pauper = Signer(bytes(32), world.ledger.network)
    poor = pauper.sign(Transfer(account_id(pauper.key), 0, world.ids[5], 1, ""))
    assert why_not(world.ledger, poor).startswith("a fee of ")
    assert why_not(world.ledger, world.people[5].sign(blob("x"))) == "not an operation"


# Accusations


def commits(by: Signer, *views: int) -> list[Signed]:
    """Two commits that differ: proof of guilt if they are of one view."""
    return [by.sign(Commit(view, 1, digest("commit", bytes([at])))) for at, view in enumerate(views)]


def test_a_proven_accusation_is_free_and_uses_its_nonce_up_if_that_is_due() -> None:
    world = World()
    assert world.reasons(world.accuse(5, *commits(world.people[0], 0, 0))) == [""]
    assert (world.account(5).balance_micro, world.account(5).nonce) == (BALANCE + BOND // 4, 1)
    assert world.reasons(world.transfer(5, world.ids[6], 1)) == [""]


def test_a_proven_accusation_waits_for_no_nonce_and_for_no_balance() -> None:
    world = World()
    pauper = Signer(bytes(32), world.ledger.network)
    name = account_id(pauper.key)
    signed = pauper.sign(Accuse(name, 7, tuple(commits(world.people[0], 0, 0))))
    assert why_not(world.ledger, signed) == ""
    assert world.reasons(signed) == [""]
    assert world.ledger.account(name) == Account(pauper.key, pauper.key, BOND // 4, 0)


def test_a_wrong_accusation_costs_its_fee_and_its_nonce() -> None:
    world = World()
    signed = world.accuse(5, *commits(world.people[0], 0, 1))
    assert why_not(world.ledger, signed) == ""
    fee = fee_micro(world.ledger.parameters(), signed)
    assert world.reasons(signed) == ["a correct validator may have said both"]
    assert (world.account(5).balance_micro, world.account(5).nonce) == (BALANCE - fee, 1)
    assert world.reasons(signed) == ["nonce 0 where 1 is due"]


def test_who_could_not_pay_for_a_wrong_accusation_must_be_right() -> None:
    world = World()
    pauper = Signer(bytes(32), world.ledger.network)
    wrong = pauper.sign(Accuse(account_id(pauper.key), 0, tuple(commits(world.people[0], 0, 1))))
    assert why_not(world.ledger, wrong).startswith("a fee of ")
    (reason,) = world.reasons(wrong)
    assert reason.startswith("a fee of ")


def test_an_accusation_is_made_with_a_key_of_the_account() -> None:
    world = World()
    evidence = tuple(commits(world.people[0], 0, 0))
    theft = world.people[6].sign(Accuse(world.ids[5], 0, evidence))
    assert world.reasons(theft) == [f"key {short(world.people[6].key)} is not one of account {short(world.ids[5])}"]
    assert world.ledger.council().condemned == ()


def test_an_accusation_of_who_has_nothing_at_stake_is_not_worth_keeping() -> None:
    world = World()
    signed = world.accuse(5, *commits(world.people[6], 0, 0))
    reason = f"nothing is left to take from key {short(world.people[6].key)}"
    assert why_not(world.ledger, signed) == reason
    assert world.reasons(signed) == [reason]
    assert world.account(5) == Account(world.people[5].key, world.people[5].key, BALANCE, 0)
