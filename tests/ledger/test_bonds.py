"""Bonds, probation, pay that vests, and how a task settles what it owes."""

from __future__ import annotations

import pytest

from potd.ledger import bonds as bonds_module
from potd.ledger.entries import FOR_EVER, Bond, Past, Phase, Standing, Window
from potd.ledger.state import entries_of, supply
from potd.wire.genesis import SUPPLY_MAX
from potd.wire.rounds import Outcome, flags_of
from tests.ledger.world import BALANCE, World

PAY = 8 * 1003 - 8 * 1003 * 150_000 // 1_000_000
REQUIRED = 20 * PAY
QUICK = {"vest_rounds": 6, "audit_rounds": 4, "fee_per_byte_micro": 0}


def bond(world: World, task: bytes, who: int) -> Bond | None:
    return world.ledger.bond(task, world.ids[who])


def poor(world: World, who: int, rest_micro: int) -> None:
    """Somebody has only so much left."""
    world.execute(world.transfer(who, world.ids[0], world.account(who).balance_micro - rest_micro))
    assert world.account(who).balance_micro == rest_micro


def on_probation(world: World, task: bytes, who: int) -> bool:
    miner = world.task(task).miner(world.ids[who])
    assert miner is not None
    return miner.probation


# Locked


def test_an_enrolment_locks_what_so_many_contributions_can_earn() -> None:
    world = World(**QUICK)
    task = world.opened(5, 6, units=3)
    three = 20 * (24 * 1003 - 24 * 1003 * 150_000 // 1_000_000)
    assert bond(world, task, 5) == Bond(world.ids[5], three, three, FOR_EVER)
    assert world.account(5).balance_micro == BALANCE - three
    assert not on_probation(world, task, 5)


def test_more_units_lock_the_difference_and_fewer_give_nothing_back() -> None:
    world = World(**QUICK)
    task = world.opened(5, 6)
    world.execute(world.enrol(5, task, 3))
    three = 20 * (24 * 1003 - 24 * 1003 * 150_000 // 1_000_000)
    assert bond(world, task, 5) == Bond(world.ids[5], three, three, FOR_EVER)
    world.execute(world.enrol(5, task, 1))
    assert bond(world, task, 5) == Bond(world.ids[5], three, three, FOR_EVER)
    assert world.account(5).balance_micro == BALANCE - three


def test_a_task_without_pay_locks_nothing() -> None:
    world = World(**QUICK)
    task = world.opened(5, 6, pay_micro=0)
    assert bond(world, task, 5) is None
    assert not on_probation(world, task, 5)
    assert world.reasons(world.leave(5, task)) == [""]


def test_a_bond_that_nobody_can_have_is_an_amount_all_the_same() -> None:
    world = World(**{**QUICK, "bond_rounds": 2**32 - 1})
    task = world.opened(escrow_micro=900_000_000, pay_micro=10_000_000, miners_min=1)
    assert world.reasons(world.enrol(5, task, 4)) == [""]
    locked = bond(world, task, 5)
    assert locked is not None
    assert locked.required_micro == SUPPLY_MAX
    assert on_probation(world, task, 5)


# Given back


def test_the_bond_of_who_leaves_goes_back_when_what_it_has_earned_has_vested() -> None:
    world = World(**QUICK)
    task = world.opened(5, 6, 7, rounds=40)
    for _ in range(3):
        world.played(task, 5, 6, 7)
    world.execute(world.leave(5, task))
    assert bond(world, task, 5) == Bond(world.ids[5], REQUIRED, REQUIRED, 9)
    assert world.ledger.parting(task).accounts == (world.ids[5],)
    while world.task(task).round < 9:
        assert bond(world, task, 5) is not None
        world.played(task, 6, 7)
    assert bond(world, task, 5) is None
    assert world.ledger.parting(task).accounts == ()
    assert world.account(5).balance_micro == BALANCE + 3 * PAY


def test_of_a_task_that_has_not_begun_a_bond_goes_back_at_once() -> None:
    world = World(**QUICK)
    task = world.opened(5)
    assert world.reasons(world.leave(5, task)) == [""]
    assert bond(world, task, 5) is None
    assert world.account(5).balance_micro == BALANCE


def test_who_comes_back_has_its_bond_there_yet() -> None:
    world = World(**QUICK)
    task = world.opened(5, 6, 7)
    world.played(task, 5, 6)
    world.execute(world.leave(5, task))
    world.execute(world.enrol(5, task))
    assert bond(world, task, 5) == Bond(world.ids[5], REQUIRED, REQUIRED, FOR_EVER)
    assert world.ledger.parting(task).accounts == ()
    assert world.account(5).balance_micro == BALANCE - REQUIRED
    for _ in range(8):
        world.played(task, 6, 7)
    assert bond(world, task, 5) is not None


def test_who_is_dismissed_gets_its_bond_back_like_who_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("potd.ledger.tasks.miners_max", lambda validators: 3)
    world = World(**QUICK, misses_max=1)
    task = world.opened(5, 6, 7, rounds=40)
    for _ in range(2):
        world.played(task, 5, 6)
    assert world.reasons(world.enrol(1, task)) == [""]
    assert bond(world, task, 7) == Bond(world.ids[7], REQUIRED, REQUIRED, 8)
    for _ in range(6):
        world.played(task, 5, 6, 1) if world.task(task).round > 2 else world.played(task, 5, 6)
    assert bond(world, task, 7) is None


def test_when_too_many_have_left_the_least_bond_waits_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bonds_module, "MINERS_MAX", 2)
    world = World(**QUICK)
    poor(world, 5, 10)
    task = world.opened(1, 2, 5, 6, 7)
    for who in (5, 6):
        world.execute(world.leave(who, task))
    world.execute(world.leave(7, task))
    assert world.ledger.parting(task).accounts == (world.ids[6], world.ids[7])
    assert world.account(5).balance_micro == 10


# Probation


def test_who_has_less_enrols_all_the_same_and_earns_its_bond_first() -> None:
    world = World(**QUICK)
    poor(world, 5, REQUIRED - PAY - 1)
    task = world.opened(6, 7, 5, rounds=40)
    assert world.account(5).balance_micro == 0
    assert on_probation(world, task, 5)
    world.played(task, 6, 7)
    trial = {5: Outcome.PROBATION}
    world.played(task, 5, 6, 7, outcomes=trial)
    assert (bond(world, task, 5), world.row(task, 1, 5).pay_micro) == (
        Bond(world.ids[5], REQUIRED - 1, REQUIRED, FOR_EVER),
        0,
    )
    assert on_probation(world, task, 5)
    world.played(task, 5, 6, 7, outcomes=trial)
    assert bond(world, task, 5) == Bond(world.ids[5], REQUIRED, REQUIRED, FOR_EVER)
    assert world.row(task, 2, 5).pay_micro == PAY - 1  # what is over is owed like any other pay
    assert not on_probation(world, task, 5)
    world.played(task, 5, 6, 7)
    assert world.row(task, 3, 5).pay_micro == PAY
    miner = world.task(task).miner(world.ids[5])
    assert miner is not None
    assert (miner.earned_micro, miner.missed) == (3 * PAY, 0)


def test_who_is_on_probation_when_a_round_is_sealed_is_so_until_it_ends() -> None:
    world = World(**QUICK)
    poor(world, 5, 0)
    task = world.opened(6, 7, 5, rounds=40)
    world.played(task, 6, 7)
    world.sealed(task, 5, 6, 7)
    state = world.task(task)
    names = [one.miner for one in world.update(task).contributions]
    sealed = [name for name, flag in zip(names, flags_of(state.probation, 3), strict=True) if flag]
    assert sealed == [world.ids[5]]
    world.execute(world.transfer(0, world.ids[5], 2 * REQUIRED))
    assert world.reasons(world.enrol(5, task)) == [""]
    assert not on_probation(world, task, 5)
    assert world.task(task).probation == state.probation
    world.execute(world.update(task, {5: Outcome.PROBATION}))
    assert world.task(task).probation == b""
    assert bond(world, task, 5) == Bond(world.ids[5], REQUIRED, REQUIRED, FOR_EVER)
    assert world.row(task, 1, 5).pay_micro == PAY  # made up since, so it is owed


def test_who_has_come_to_money_makes_its_bond_up_by_enrolling_again() -> None:
    world = World(**QUICK)
    poor(world, 5, 0)
    task = world.opened(6, 7, 5)
    assert world.reasons(world.enrol(5, task)) == ["already enrolled with 1 units"]
    world.execute(world.transfer(0, world.ids[5], 100))
    assert world.reasons(world.enrol(5, task)) == [""]
    assert bond(world, task, 5) == Bond(world.ids[5], 100, REQUIRED, FOR_EVER)


def test_who_asks_for_more_than_it_can_secure_is_on_probation_from_then_on() -> None:
    world = World(**QUICK)
    poor(world, 5, REQUIRED)
    task = world.opened(6, 7, 5)
    assert not on_probation(world, task, 5)
    world.execute(world.enrol(5, task, 2))
    assert on_probation(world, task, 5)


def test_a_round_in_which_all_but_too_few_are_on_probation_lapses_and_pays_nobody() -> None:
    world = World(**QUICK)
    task = world.opened(6, 7)
    escrow = world.task(task).escrow_micro
    world.played(task, 6, 7, outcomes={6: Outcome.PROBATION})
    assert (world.task(task).lapses, world.task(task).escrow_micro) == (1, escrow)
    assert world.ledger.past(task, 0) is None


# Vesting


def test_pay_vests_when_so_many_rounds_have_passed_and_the_round_is_forgotten() -> None:
    world = World(**QUICK)
    task = world.opened(5, 6, rounds=40)
    for _ in range(6):
        world.played(task, 5, 6)
        if world.task(task).round < 6:
            assert world.account(5).balance_micro == BALANCE - REQUIRED
    assert world.account(5).balance_micro == BALANCE - REQUIRED + PAY
    assert world.ledger.past(task, 0) is None
    assert [world.ledger.past(task, n) is None for n in range(1, 6)] == [False] * 5


def test_a_round_that_lapses_moves_the_time_on_too() -> None:
    world = World(**QUICK, lapses_max=9)
    task = world.opened(5, 6, rounds=40)
    world.played(task, 5, 6)
    for _ in range(5):
        world.sealed(task, 5)
    assert world.account(5).balance_micro == BALANCE - REQUIRED + PAY


def test_pay_never_vests_before_its_round_has_been_judged() -> None:
    world = World(vest_rounds=1, audit_rounds=8, fee_per_byte_micro=0)
    task = world.opened(5, 6, rounds=40)
    for _ in range(9):
        assert world.account(5).balance_micro == BALANCE - REQUIRED
        world.played(task, 5, 6)
    assert world.account(5).balance_micro == BALANCE - REQUIRED + PAY


def test_a_round_that_is_past_says_what_it_was() -> None:
    world = World(**QUICK)
    task = world.opened(5, 6)
    before = world.task(task)
    world.sealed(task, 5, 6)
    world.execute(world.update(task, {6: Outcome.WITHHELD}))
    assert world.task(task).lapses == 1
    world.played(task, 5, 6)
    past = world.past(task, 1)
    assert (past.task, past.round, past.height, past.model) == (task, 1, world.ledger.height, before.model)
    assert (past.window, past.validators, past.promises) == (0, 4, ())
    assert world.ledger.window(task, 0) == before.window
    assert [row.miner for row in past.rows] == sorted(world.ids[5:7])
    for row in past.rows:
        assert (row.units, row.outcome, row.pay_micro, row.standing) == (1, 0, PAY, Standing.UNCONTESTED)
    assert world.task(task).norm == 1000


def test_a_window_is_kept_while_a_round_of_it_can_be_audited() -> None:
    world = World(vest_rounds=30, audit_rounds=4)
    task = world.opened(5, 6, rounds=40)
    kept = []
    for _ in range(14):
        world.played(task, 5, 6)
        kept.append([begins for begins in range(0, 16, 4) if world.ledger.window(task, begins) is not None])
        needed = {past.window for past in world.ledger.pasts(task)}
        assert needed <= set(kept[-1])
    # The window of rounds 0 to 3 goes with round 3, whose audit is over when round 8 opens.
    assert kept == [[0]] * 4 + [[0, 4]] * 3 + [[4]] + [[4, 8]] * 3 + [[8]] + [[8, 12]] * 2


# Settling


def test_a_task_that_is_done_settles_all_that_it_owes_and_nothing_of_it_is_left() -> None:
    world = World(vest_rounds=50, settle_heights=5, audit_rounds=4, fee_per_byte_micro=0)
    task = world.opened(5, 6, 7, rounds=6)
    world.execute(*(world.chain(who, task) for who in range(4)))
    world.played(task, 5, 6)
    world.execute(world.leave(7, task))
    for _ in range(5):
        world.played(task, 5, 6)
    assert world.task(task).phase == Phase.DONE
    rested = world.ledger.height
    assert (world.task(task).rested_height, world.ledger.settles()) == (rested, rested + 5)
    assert world.ledger.settling() == (task,)
    for _ in range(4):
        world.execute()
        assert world.account(5).balance_micro == BALANCE - REQUIRED
    world.execute()
    assert (world.ledger.settling(), world.ledger.settles()) == ((), None)
    assert [world.account(who).balance_micro for who in (5, 6, 7)] == [BALANCE + 6 * PAY, BALANCE + 6 * PAY, BALANCE]
    left = [entry for _, entry in entries_of(world.ledger) if isinstance(entry, Past | Bond | Window)]
    assert left == []
    assert world.ledger.parting(task).accounts == ()
    assert all(world.ledger.chains(task, one) is None for one in world.ids)
    assert supply(world.ledger) == world.ledger.globals().supply_micro


def test_tasks_settle_in_the_order_in_which_they_were_done() -> None:
    world = World(settle_heights=4)
    first, second = world.opened(5, 6, rounds=1), world.opened(5, 6, rounds=1)
    world.played(second, 5, 6)
    world.played(first, 5, 6)
    seen = []
    for _ in range(6):
        seen.append((world.ledger.settling(), world.ledger.settles()))
        world.execute()
    rested = [world.task(one).rested_height for one in (second, first)]
    assert rested[1] == rested[0] + 2
    both, last = ((second, first), rested[1] + 4), ((first,), rested[1] + 4)
    assert seen == [both, both, last, last, ((), None), ((), None)]


def test_leaving_a_task_that_is_done_changes_nothing_of_what_is_owed() -> None:
    world = World(settle_heights=4, fee_per_byte_micro=0)
    task = world.opened(5, 6, rounds=1)
    world.played(task, 5, 6)
    assert world.reasons(world.leave(5, task)) == [""]
    for _ in range(4):
        world.execute()
    assert world.account(5).balance_micro == BALANCE + PAY
    assert world.reasons(world.leave(6, task)) == [""]
