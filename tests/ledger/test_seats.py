"""Seats: who stands for one, whose voices give it, how sets give way, and what becomes of bonds and keys."""

from __future__ import annotations

from dataclasses import replace

import pytest

from potd.ledger import seats, tasks
from potd.ledger.entries import Change, Council, Seat, Unbonding
from potd.ledger.state import genesis_ledger, supply
from potd.wire.blocks import miners_max, validators_digest
from potd.wire.consensus import PrePrepare, can_change_views, quorum_of
from potd.wire.envelope import Signed, Signer
from potd.wire.ids import NOTHING, account_id, digest, short
from potd.wire.operations import Possession, Rekey, Stand, Transfer
from potd.wire.rounds import Measured
from tests.ledger.world import BALANCE, BOND, World, genesis

WINDOW, LOCKED = 4, 6  # window_heights and unbonding_heights of the worlds here
EMPTY = Council((), (), (), (), ())


def world(**parameters: int) -> World:
    return World(**{"window_heights": WINDOW, "unbonding_heights": LOCKED, "fee_per_byte_micro": 0, **parameters})


def orders(voter: Signer) -> tuple[Signed, Signed]:
    """Two batches for one place: proof of guilt."""
    return voter.sign(PrePrepare(0, 1, digest("one"))), voter.sign(PrePrepare(0, 1, digest("other")))


# Genesis


def test_a_genesis_validator_locks_its_bond_or_as_much_as_it_has() -> None:
    of = genesis()
    poor = replace(of, balances=(replace(of.balances[0], amount_micro=7), *of.balances[1:]))
    ledger = genesis_ledger(poor)
    assert [seat.bond_micro for seat in ledger.validators()] == [7, BOND, BOND, BOND]
    assert supply(ledger) == sum(one.amount_micro for one in poor.balances)
    account = ledger.account(account_id(of.validators[0]))
    assert account is not None
    assert account.balance_micro == 0


# Standing


def test_who_stands_locks_the_bond_at_once_and_gets_it_back_by_withdrawing() -> None:
    w = world()
    assert w.reasons(w.stand(5)) == [""]
    assert w.account(5).balance_micro == BALANCE - BOND
    (candidate,) = w.ledger.council().candidates
    assert (candidate.account, candidate.key, candidate.bond_micro) == (w.ids[5], w.people[5].key, BOND)
    assert w.reasons(w.stand(5)) == ["it stands for a seat already"]
    assert w.reasons(w.resign(5)) == [""]
    assert w.account(5).balance_micro == BALANCE
    assert w.ledger.council() == EMPTY


def test_who_is_short_of_the_bond_cannot_stand() -> None:
    w = world()
    w.execute(w.transfer(5, w.ids[6], BALANCE - BOND + 1))
    assert w.reasons(w.stand(5)) == [f"a bond of {BOND} micro-units, and a balance of {BOND - 1}"]


def test_who_has_a_seat_cannot_stand_for_another() -> None:
    w = world()
    assert w.reasons(w.stand(0)) == ["it has a seat, or is about to have one"]


def test_nobody_stands_with_a_key_that_it_does_not_hold_or_that_is_anothers() -> None:
    w = world()
    stranger = w.signer("stranger")
    elsewhere = Signer(bytes(32), digest("another network")).sign(Possession(w.ids[5])).signature
    for proof in (bytes(64), w.people[5].sign(Possession(w.ids[5])).signature, w.proof(stranger, 6), elsewhere):
        signed = w.sign(5, Stand(w.ids[5], w.account(5).nonce, stranger.key, proof))
        assert w.reasons(signed) == [f"no proof by key {short(stranger.key)} that it may be used"]
    assert w.reasons(w.stand(5, w.people[0])) == [f"key {short(w.people[0].key)} is another account's"]
    assert w.reasons(w.stand(5, w.people[6])) == [f"key {short(w.people[6].key)} is another account's"]
    assert w.reasons(w.rekey(6, node=stranger)) == [""]
    assert w.reasons(w.stand(5, stranger)) == [f"key {short(stranger.key)} is another account's"]


def test_a_payment_to_the_account_of_a_fresh_key_does_not_keep_its_holder_from_standing() -> None:
    w = world()
    fresh = w.signer("fresh")
    w.execute(w.transfer(6, account_id(fresh.key), 1))
    assert w.reasons(w.stand(5, fresh)) == [""]


def test_who_stands_with_another_key_votes_and_operates_with_it() -> None:
    w = world()
    fresh = w.signer("fresh")
    assert w.reasons(w.stand(5, fresh)) == [""]
    assert w.account(5).node_key == fresh.key
    assert w.ledger.account_of(fresh.key) == w.ids[5]
    assert w.reasons(w.rekey(5, node=w.signer("fresher"))) == ["it stands for a seat with the node key that it has"]
    w.backed(5, 0, 1, 2)
    w.until_changed()
    assert w.ledger.validators()[-1] == Seat(w.ids[5], fresh.key, BOND, w.ledger.height)


def test_the_node_key_alone_cannot_be_traded_for_another_by_standing() -> None:
    w = world()
    hot, other = w.signer("hot"), w.signer("other")
    w.execute(w.rekey(5, node=hot))
    proof = w.proof(other, 5)
    signed = hot.sign(Stand(w.ids[5], w.account(5).nonce, other.key, proof))
    assert w.reasons(signed) == ["only the owner key may replace the node key"]
    assert w.reasons(hot.sign(Stand(w.ids[5], w.account(5).nonce, hot.key, w.proof(hot, 5)))) == [""]


# Voices


def test_a_quorum_of_voices_admits_a_window_later() -> None:
    w = world()
    w.execute(w.stand(5))
    w.backed(5, 0, 1)
    assert w.ledger.change() is None
    w.backed(5, 2)
    approved = w.ledger.height
    change = w.ledger.change()
    assert change is not None
    assert change.height == approved + WINDOW
    assert [seat.account for seat in change.seats] == [w.ids[who] for who in (0, 1, 2, 3, 5)]
    before = tuple(seat.key for seat in w.ledger.validators())
    for _ in range(WINDOW - 1):
        assert w.execute().header.validators == validators_digest(before)
    header = w.execute().header
    assert header.height == change.height
    assert header.validators == validators_digest([*before, w.people[5].key])
    assert (w.ledger.seats().base, w.ledger.seats().before) == (change.height, before)
    assert w.ledger.eras().bases == (0, change.height)
    assert w.ledger.change() is None
    assert w.ledger.council() == EMPTY


def test_a_voice_may_be_taken_back_and_counts_once() -> None:
    w = world()
    w.execute(w.stand(5))
    w.backed(5, 0, 1)
    assert w.reasons(w.back(1, 5)) == ["it says so already"]
    w.backed(5, 1, seated=False)
    w.backed(5, 2)
    assert w.ledger.change() is None
    w.backed(5, 3)
    assert w.ledger.change() is not None


def test_only_validators_have_a_voice_and_only_on_validators_and_candidates() -> None:
    w = world()
    w.execute(w.stand(5))
    assert w.reasons(w.back(6, 5)) == ["only who has a seat has a voice"]
    assert w.reasons(w.back(5, 5)) == ["only who has a seat has a voice"]
    assert w.reasons(w.back(0, 6)) == [f"{short(w.ids[6])} has no seat and does not stand for one"]
    assert w.reasons(w.back(0, 1)) == ["it says so already"]


def test_a_voice_counts_only_while_its_author_has_a_seat() -> None:
    w = world()
    w.execute(w.stand(5))
    w.execute(w.stand(6))
    w.backed(5, 0, 1)
    w.execute(w.resign(0))
    w.until_changed()
    assert w.seated() == [1, 2, 3]
    assert [one.backers for one in w.ledger.council().candidates if one.account == w.ids[5]] == [(w.ids[1],)]
    w.backed(5, 2)
    w.until_changed()
    assert w.seated() == [1, 2, 3, 5]


def test_a_quorum_of_the_others_removes_a_validator() -> None:
    w = world()
    w.backed(3, 0, 1, seated=False)
    w.backed(3, 1, seated=True)  # thinks better of it
    assert w.ledger.council().opposed[0].opposers == (w.ids[0],)
    w.backed(3, 1, 2, seated=False)
    w.until_changed()
    assert w.seated() == [0, 1, 2]
    assert w.ledger.council() == EMPTY


def test_voices_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seats, "VOICES_MAX", 2)
    w = world()
    w.execute(w.stand(5))
    w.backed(5, 0)
    w.backed(3, 0, seated=False)
    assert w.reasons(w.back(0, 2, False)) == ["it has 2 voices already"]
    w.backed(5, 0, seated=False)
    assert w.reasons(w.back(0, 2, False)) == [""]


def test_candidates_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seats, "CANDIDATES_MAX", 1)
    w = world()
    assert w.reasons(w.stand(5), w.stand(6)) == ["", "1 stand for a seat already"]


# Changes


def test_no_more_seats_change_at_once_than_may_fail_and_the_rest_waits() -> None:
    w = world()  # four validators: f is one
    w.execute(w.stand(5))
    w.execute(w.rekey(2, node=w.signer("next")))
    change = w.ledger.change()
    assert change is not None  # the rotation alone was approved then
    w.backed(5, 0, 1, 2)
    w.execute(w.resign(3), w.resign(1))
    assert w.ledger.change() == change
    w.until_changed()
    assert w.seated() == [0, 1, 2, 3]
    leaver = min((1, 3), key=lambda who: w.ids[who])
    w.until_changed()
    assert sorted(w.seated()) == sorted({0, 1, 2, 3} - {leaver})
    w.until_changed()  # resignations come before admissions
    assert w.seated() == [0, 2]
    w.until_changed()
    assert w.seated() == [0, 2, 5]
    assert w.ledger.change() is None


def test_a_set_of_seven_changes_two_seats_at_once() -> None:
    w = world()
    for who in (4, 5, 6):
        w.execute(w.stand(who))
        w.backed(who, *w.seated()[: quorum_of(len(w.seated()))])
        w.until_changed()
    assert w.seated() == [0, 1, 2, 3, 4, 5, 6]
    w.execute(w.resign(0), w.resign(4), w.resign(5))
    change = w.ledger.change()
    assert change is not None
    assert len(change.seats) == 5
    w.until_changed()
    w.until_changed()
    assert len(w.seated()) == 4


def test_the_last_validator_stays() -> None:
    w = world()
    for _ in range(3):
        first, *others = w.seated()
        if len(others) > 1:
            w.execute(w.resign(first))
        else:  # two resign at once, and one is too many
            w.execute(w.resign(first), w.resign(others[0]))
        w.until_changed()
    assert len(w.seated()) == 1
    for _ in range(2 * WINDOW):
        w.execute()
    assert w.ledger.change() is None
    w.execute(w.stand(5))
    w.backed(5, w.seated()[0])
    w.until_changed()
    w.until_changed()  # now the other may go
    assert w.seated() == [5]
    assert w.reasons(w.resign(5)) == ["it is the only validator"]


def test_nobody_is_admitted_beyond_what_a_new_view_can_show(monkeypatch: pytest.MonkeyPatch) -> None:
    assert can_change_views(69, 16)
    assert not can_change_views(70, 16)
    monkeypatch.setattr(seats, "can_change_views", lambda validators, window: validators <= 4 and window == WINDOW)
    w = world()
    w.execute(w.stand(5))
    w.backed(5, 0, 1, 2)
    assert w.ledger.change() is None
    w.execute(w.resign(3))
    w.until_changed()
    w.until_changed()
    assert w.seated() == [0, 1, 2, 5]


def test_a_set_that_grows_dismisses_the_miners_whose_seals_would_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "miners_max", lambda validators: 7 - validators)
    w = world()
    task = w.opened(1, 2, 6)
    w.execute(w.stand(5))
    w.backed(5, 0, 1, 2)
    w.until_changed()
    assert [one.account for one in w.task(task).miners] == sorted((w.ids[1], w.ids[2]))  # the newest goes
    assert miners_max(5) < miners_max(4)


# Giving up a seat


def test_a_bond_stays_locked_for_a_while_after_its_seat_is_given_up() -> None:
    w = world()
    w.execute(w.resign(0))
    w.until_changed()
    left = w.ledger.height
    assert w.account(0).balance_micro == BALANCE
    assert w.ledger.unbonding(w.ids[0]) == Unbonding(BOND, left + LOCKED)
    assert w.reasons(w.stand(0)) == ["the bond of its last seat is locked yet"]
    while w.ledger.height < left + LOCKED - 1:
        w.execute()
    assert w.account(0).balance_micro == BALANCE
    w.execute()
    assert w.account(0).balance_micro == BALANCE + BOND
    assert w.ledger.unbonding(w.ids[0]) is None
    assert not [key for key, _ in w.ledger.entries.items() if key[:1] in b"kud"]
    assert w.reasons(w.stand(0)) == [""]


def test_nobody_resigns_twice() -> None:
    w = world()
    first, second = sorted((0, 1), key=lambda who: w.ids[who])
    w.execute(w.resign(first), w.resign(second))
    assert w.reasons(w.resign(second)) == ["it has resigned already"]


def test_who_has_no_seat_and_wants_none_has_nothing_to_resign() -> None:
    assert world().reasons(world().resign(5)) == ["it has no seat, and does not stand for one"]


def test_a_seat_that_is_about_to_change_takes_no_other_wish() -> None:
    w = world()
    w.execute(w.stand(5))
    w.backed(5, 0, 1, 2)
    change = w.ledger.change()
    assert change is not None
    about = f"its seat is about to change, at height {change.height}"
    assert w.reasons(w.resign(5), w.rekey(5, node=w.signer("x"), nonce=2)) == [about, about]
    assert w.reasons(w.stand(5)) == ["it has a seat, or is about to have one"]
    assert w.reasons(w.back(0, 5, False)) == [""]  # but who is coming may be opposed already


# Keys


def test_a_validators_new_node_key_takes_over_with_its_seat_and_not_before() -> None:
    w = world()
    old, new = w.people[1], w.signer("new")
    assert w.reasons(w.rekey(1, node=new)) == [""]
    assert w.account(1).node_key == old.key
    order = w.seated()
    w.until_changed()
    assert w.seated() == order
    assert w.ledger.validators()[1] == Seat(w.ids[1], new.key, BOND, 0)
    assert (w.account(1).node_key, w.account(1).owner_key) == (new.key, old.key)
    assert w.ledger.account_of(new.key) == w.ledger.account_of(old.key) == w.ids[1]
    due = w.ledger.height + LOCKED
    assert w.reasons(w.rekey(1, node=old)) == [f"key {short(old.key)} has voted, and answers for it up to height {due}"]
    while w.ledger.height < due:
        w.execute()
    assert w.reasons(w.rekey(1, node=old)) == [""]  # and now it may vote again


def test_a_rotation_may_be_changed_and_taken_back_before_it_is_planned() -> None:
    w = world()
    first, second = w.signer("first"), w.signer("second")
    w.execute(w.rekey(0, node=w.signer("other")))  # fills the change, as one of four
    w.execute(w.rekey(1, node=first))
    w.execute(w.rekey(1, node=second))
    assert [one.key for one in w.ledger.council().rotations] == [second.key]
    assert w.ledger.holder(first.key) is None
    w.execute(w.rekey(1, node=w.people[1]))
    assert w.ledger.council().rotations == ()
    assert w.ledger.holder(second.key) is None


def test_who_leaves_before_its_rotation_is_planned_has_the_new_key_all_the_same() -> None:
    w = world()
    new = w.signer("new")
    w.execute(w.rekey(0, node=w.signer("other")))
    w.execute(w.rekey(1, node=new), w.resign(1, nonce=1))
    w.until_changed()
    w.until_changed()
    assert w.seated() == [0, 2, 3]
    assert w.account(1).node_key == new.key
    assert w.ledger.council() == EMPTY


def test_keys_are_replaced_at_once_without_a_seat_and_by_the_owner_alone() -> None:
    w = world()
    cold, hot = w.signer("cold"), w.signer("hot")
    assert w.reasons(w.rekey(5, owner=cold.key, node=hot)) == [""]
    assert (w.account(5).owner_key, w.account(5).node_key) == (cold.key, hot.key)
    assert w.reasons(w.transfer(5, w.ids[6], 1)) == [
        f"key {short(w.people[5].key)} is not one of account {short(w.ids[5])}"
    ]
    only = f"only the owner key of account {short(w.ids[5])} may do that"
    assert w.reasons(hot.sign(Transfer(w.ids[5], 1, w.ids[6], 1, ""))) == [only]
    assert w.reasons(hot.sign(Rekey(w.ids[5], 1, hot.key, NOTHING, b""))) == [only]
    assert w.reasons(cold.sign(Transfer(w.ids[5], 1, w.ids[6], 1, ""))) == [""]
    assert w.reasons(hot.sign(Stand(w.ids[5], 2, hot.key, w.proof(hot, 5)))) == [""]


def test_a_rekey_without_a_key_or_with_a_stray_proof_is_refused() -> None:
    w = world()
    assert w.reasons(w.rekey(5)) == ["no key to replace"]
    stray = w.sign(5, Rekey(w.ids[5], 1, w.signer("cold").key, NOTHING, bytes(64)))
    assert w.reasons(stray) == ["a proof of no key"]
    assert w.account(5).owner_key == w.people[5].key


def test_a_miner_with_a_new_key_enrols_again_with_it() -> None:
    w = world()
    task = w.opened(5, 6)
    hot = w.signer("hot")
    assert w.reasons(w.enrol(5, task)) == ["already enrolled with 1 units"]
    w.execute(w.rekey(5, node=hot))
    assert w.reasons(w.enrol(5, task)) == [""]
    miner = w.task(task).miner(w.ids[5])
    assert miner is not None
    assert miner.key == hot.key


# Guilt


def test_the_guilty_lose_the_bond_a_quarter_to_the_accuser_the_rest_to_the_other_validators() -> None:
    w = world()
    assert w.reasons(w.accuse(5, *orders(w.people[0]))) == [""]
    assert w.account(5).balance_micro == BALANCE + BOND // 4
    rest = BOND - BOND // 4
    assert [w.account(who).balance_micro - BALANCE for who in range(4)] == [0, rest // 3, rest // 3, rest // 3]
    assert w.ledger.globals().fees_micro == rest % 3
    assert supply(w.ledger) == w.ledger.globals().supply_micro


def test_a_seat_whose_bond_is_gone_is_neither_paid_nor_heard_and_is_vacated_at_the_next_change() -> None:
    w = world(fee_per_byte_micro=3)
    w.execute(w.stand(6))
    w.backed(6, 0, 1)
    w.execute(w.accuse(5, *orders(w.people[0])))
    before = w.account(0).balance_micro
    change = w.ledger.change()
    assert change is not None
    assert w.ids[0] not in [seat.account for seat in change.seats]
    w.backed(6, 2)
    assert w.account(0).balance_micro == before
    assert w.reasons(w.back(0, 3, False)) == ["only who has a seat has a voice"]
    w.until_changed()
    assert w.seated() == [1, 2, 3]
    assert w.ledger.unbonding(w.ids[0]) is None
    assert w.ledger.council().condemned == ()
    assert w.ledger.change() is not None or w.ledger.council().candidates[0].backers == (w.ids[1], w.ids[2])


def test_nothing_is_taken_twice_and_a_guilty_key_never_votes_again() -> None:
    w = world(fee_per_byte_micro=3)
    proof = orders(w.people[0])
    assert w.reasons(w.accuse(5, *proof)) == [""]
    nothing = f"nothing is left to take from key {short(w.people[0].key)}"
    before = w.account(6)
    assert w.reasons(w.accuse(6, *proof)) == [nothing]
    assert w.account(6) == before  # being second costs nothing
    w.until_changed()
    assert w.reasons(w.accuse(6, *proof)) == [nothing]
    assert w.reasons(w.stand(0)) == [f"key {short(w.people[0].key)} was found guilty"]
    for _ in range(LOCKED + 1):
        w.execute()
    assert w.reasons(w.stand(0)) == [f"key {short(w.people[0].key)} was found guilty"]
    assert w.reasons(w.stand(0, w.signer("new"))) == [""]
    assert w.reasons(w.accuse(6, *proof)) == [nothing]


def test_who_has_given_up_its_seat_can_be_accused_until_its_bond_goes_back() -> None:
    for late, expected in ((1, ""), (0, f"nothing is left to take from key {short(World().people[0].key)}")):
        w = world()
        w.execute(w.resign(0))
        w.until_changed()
        for _ in range(LOCKED - late):
            w.execute()
        assert w.reasons(w.accuse(5, *orders(w.people[0]))) == [expected]
        for _ in range(2):
            w.execute()
        assert w.account(0).balance_micro == BALANCE + (0 if late else BOND)
        assert supply(w.ledger) == w.ledger.globals().supply_micro


def test_a_key_that_was_rotated_out_still_costs_the_seat_its_bond() -> None:
    w = world()
    old = w.people[0]
    w.execute(w.rekey(0, node=w.signer("new")))
    w.until_changed()
    assert w.reasons(w.accuse(5, *orders(old))) == [""]
    assert w.ledger.validators()[0].bond_micro == 0
    w.until_changed()
    assert w.seated() == [1, 2, 3]


def test_who_is_guilty_before_its_seat_begins_or_as_it_ends_loses_the_one_bond_that_it_has() -> None:
    for incoming in (True, False):
        w = world()
        if incoming:
            w.execute(w.stand(5))
            w.backed(5, 0, 1, 2)
        else:
            w.execute(w.resign(0))
        guilty = 5 if incoming else 0
        assert w.reasons(w.accuse(6, *orders(w.people[guilty]))) == [""]
        assert w.account(6).balance_micro == BALANCE + BOND // 4
        assert supply(w.ledger) == w.ledger.globals().supply_micro
        w.until_changed()
        if incoming:
            w.until_changed()
        assert guilty not in w.seated()
        assert w.ledger.unbonding(w.ids[guilty]) is None


def test_a_validator_without_any_bond_loses_its_seat_when_it_is_guilty() -> None:
    w = world(seat_bond_micro=0)
    assert w.reasons(w.accuse(5, *orders(w.people[0]))) == [""]
    w.until_changed()
    assert w.seated() == [1, 2, 3]


def test_the_change_that_is_pending_is_the_one_that_takes_over() -> None:
    w = world()
    w.execute(w.resign(0))
    change = w.ledger.change()
    assert isinstance(change, Change)
    w.execute(w.resign(1))
    w.execute(w.accuse(5, *orders(w.people[2])))
    pending = w.ledger.change()
    assert pending is not None
    assert [seat.key for seat in pending.seats] == [seat.key for seat in change.seats]


def test_the_voice_of_who_is_found_guilty_in_the_same_height_does_not_count() -> None:
    w = world()
    for who in (4, 5, 6):
        w.execute(w.stand(who))
        w.backed(who, *w.seated()[: quorum_of(len(w.seated()))])
        w.until_changed()
    w.execute(w.stand(7))
    w.backed(7, 1, 2, 3, 4)
    assert w.reasons(w.back(0, 7), w.accuse(1, *orders(w.people[0]))) == ["", ""]
    change = w.ledger.change()
    assert change is not None
    assert [seat.account for seat in change.seats] == [w.ids[who] for who in range(1, 7)]


def test_one_proof_is_never_used_twice_though_its_seat_is_long_gone_and_its_account_back() -> None:
    w = world()
    proof = orders(w.people[0])
    w.execute(w.resign(0))
    w.until_changed()
    assert w.reasons(w.accuse(5, *proof)) == [""]
    assert w.reasons(w.stand(0)) == [f"key {short(w.people[0].key)} was found guilty"]
    w.execute(w.stand(0, w.signer("new")))
    w.backed(0, 1, 2)
    w.until_changed()
    assert w.seated() == [1, 2, 3, 0]
    assert w.reasons(w.accuse(5, *proof)) == [f"nothing is left to take from key {short(w.people[0].key)}"]


def test_a_bond_is_taken_once_whichever_of_its_keys_are_guilty() -> None:
    w = world()
    new = w.signer("new")
    w.execute(w.rekey(0, node=new))
    w.until_changed()
    assert w.reasons(w.accuse(5, *orders(w.people[0]))) == [""]
    assert w.reasons(w.accuse(6, *orders(new))) == [f"nothing is left to take from key {short(new.key)}"]
    assert w.ledger.council().condemned == (w.ids[0],)


def test_a_key_that_has_voted_answers_for_it_also_when_its_account_has_replaced_it_since() -> None:
    w = world()
    w.execute(w.resign(0))
    w.until_changed()
    assert w.reasons(w.rekey(0, node=w.signer("new"))) == [""]
    assert w.reasons(w.accuse(5, *orders(w.people[0]))) == [""]


def test_a_key_that_has_waited_is_its_accounts_again_if_that_has_no_other() -> None:
    w = world()
    fresh = w.signer("fresh")
    w.execute(w.stand(5, fresh))
    w.backed(5, 0, 1, 2)
    w.until_changed()
    w.execute(w.resign(5))
    w.until_changed()
    for _ in range(LOCKED):
        w.execute()
    assert w.account(5).balance_micro == BALANCE
    assert w.ledger.account_of(fresh.key) == w.ids[5]
    assert w.reasons(w.stand(6, fresh)) == [f"key {short(fresh.key)} is another account's"]
    assert w.reasons(w.stand(5, fresh)) == [""]


def test_only_the_newest_eras_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seats, "ERAS_MAX", 2)
    w = world()
    bases = [0]
    for name in ("a", "b"):
        w.execute(w.rekey(0, node=w.signer(name)))
        w.until_changed()
        bases.append(w.ledger.height)
    assert w.ledger.eras().bases == tuple(bases[-2:])


def test_reports_count_if_they_are_by_who_decides_the_height_that_they_are_executed_at() -> None:
    w = world()
    task = w.opened(1, 2)
    measured = [(Measured(0, 7, 9, 1),), (), (), ()]  # by one validator, who leaves
    w.execute(w.resign(0))
    assert w.reasons(w.evaluation(task, 0, measured)) == ["an evaluation by 1 validators, 2 are needed"]
    w.until_changed()
    assert w.reasons(w.evaluation(task, 0, measured)) == ["an evaluation by 0 validators, 1 are needed"]
