"""Opening tasks, enrolling for them, leaving them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from potd.ledger import tasks as tasks_module
from potd.ledger.accounts import fee_micro
from potd.ledger.entries import Member, Phase
from potd.ledger.tasks import escrow_min_micro, spec_problems, units_max
from potd.wire.codec import encode
from potd.wire.ids import NO_BLOB, NOTHING, BlobRef, short, task_id
from potd.wire.rounds import Outcome
from potd.wire.rules import CLIP, MEAN
from potd.wire.tasks import EncodingSpec, ModelSpec, OptimiserSpec, RuleSpec
from tests.ledger.world import BALANCE, World, blob, spec


def test_a_submission_takes_the_escrow_and_opens_a_task_of_its_own_name() -> None:
    world = World()
    signed = world.submit(5, 5_000_000, spec())
    assert world.reasons(signed) == [""]
    name = task_id(encode(signed))
    assert world.ledger.task_ids() == (name,)
    assert world.ledger.spec(name) == spec()
    task = world.task(name)
    assert (task.owner, task.phase, task.round, task.opened_height) == (world.ids[5], Phase.WAITING, 0, 1)
    assert (task.model, task.momentum, task.escrow_micro) == (blob("weights"), NO_BLOB, 5_000_000)
    fee = fee_micro(world.ledger.parameters(), signed)
    assert world.account(5).balance_micro == BALANCE - 5_000_000 - fee
    assert [one.id for one in world.ledger.tasks()] == [name]


def test_an_escrow_must_pay_one_round_and_be_there() -> None:
    world = World()
    assert escrow_min_micro(spec()) == 1003 * 8 * 2
    assert world.reasons(world.submit(5, 16_047, spec())) == [
        "an escrow of 16047 micro-units, a round costs at least 16048"
    ]
    (reason,) = world.reasons(world.submit(5, BALANCE, spec()))
    assert reason.startswith("an escrow of 1000000000 micro-units, and a balance of ")
    assert world.reasons(world.submit(5, 16_048, spec())) == [""]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"loss": "hinge"}, "unknown loss, known: cross_entropy"),
        (
            {"rule": RuleSpec("bulyan", 0, 0, 0, 1)},
            "unknown rule, known: mean, clip, trimmed, median, centred, krum, multi-krum",
        ),
        ({"rule": RuleSpec("krum", 0, 0, 0, 1)}, "rule krum without faults"),
        ({"rule": RuleSpec("median", 0, 2_000, 0, 1)}, "rule median takes no radius"),
        ({"rig_class": "bf16"}, "unknown rig class, known: float32"),
        ({"name": "a\nb"}, "a name that cannot be printed"),
        ({"model": ModelSpec("gpt", (3, 2), 10)}, "unknown model, known: mlp, cnn"),
        ({"weights": blob("weights", 41)}, "weights of 41 bytes for 10 float32 parameters"),
        ({"weights": BlobRef(NOTHING, 40)}, "weights of 40 bytes for 10 float32 parameters"),
        ({"manifest": NO_BLOB}, "no manifest"),
        ({"optimiser": OptimiserSpec("adam", 0, (1,))}, "unknown optimiser, known: sgd, nesterov"),
        ({"encoding": EncodingSpec("int4", 256, -20, 0)}, "unknown encoding, known: int8"),
        ({"encoding": EncodingSpec("int8", 256, 0, -1)}, "exponents from 0 down to -1"),
        (
            {"encoding": EncodingSpec("int8", 256, -60, 30)},
            "sums of 2 units could overflow, at most 0 units fit",
        ),
        (
            {"deadline_ticks_min": 300},
            "a deadline of at least 300 and at most 200 ticks",
        ),
        ({"tolerance_nano": 99}, "a tolerance of 99, at least 100 or 0 for no audits"),
        ({"miners_min": 5000}, "at least 5000 miners, of at most 4096"),
    ],
)
def test_a_spec_that_cannot_be_trained_is_refused_with_its_reason(changes: dict[str, Any], problem: str) -> None:
    world = World()
    assert spec_problems(spec(**changes)) == (problem,)
    assert world.reasons(world.submit(5, 100_000_000, spec(**changes))) == [problem]
    assert world.ledger.task_ids() == ()


def test_every_problem_of_a_spec_is_said() -> None:
    bad = spec(loss="hinge", rule=replace(MEAN, bucket=2), manifest=NO_BLOB)
    assert len(spec_problems(bad)) == 3


def test_the_most_units_are_the_most_whose_sums_fit_63_bits() -> None:
    for rule, weight in ((MEAN, 1), (CLIP, 65_536)):
        for least, most in ((-20, 0), (-40, -10), (0, 0)):
            of = spec(rule=rule, encoding=EncodingSpec("int8", 256, least, most))
            one = 127 * weight * 2 ** (most - least)
            assert one * units_max(of) < 2**63 <= one * (units_max(of) + 1)


def test_a_task_starts_when_it_has_its_least_number_of_miners() -> None:
    world = World()
    task = world.opened(1)
    assert world.task(task).phase == Phase.WAITING
    seed = world.task(task).seed
    world.execute(world.enrol(2, task, 3))
    state = world.task(task)
    assert (state.phase, state.round, state.deadline_ticks) == (Phase.TRAINING, 0, 200)
    assert state.seed != seed
    members = tuple(sorted((Member(world.ids[1], 1), Member(world.ids[2], 3)), key=lambda one: one.miner))
    assert (state.window.begins, state.window.members) == (0, members)
    assert (state.next_window.begins, state.next_window.members) == (4, members)
    assert state.window.seed != state.next_window.seed


def test_the_seed_at_the_start_is_unknown_when_the_task_is_submitted() -> None:
    seeds = set()
    for amount in (1, 2):
        world = World()
        task = world.opened(1)
        world.execute(world.transfer(5, world.ids[6], amount))
        world.execute(world.enrol(2, task))
        seeds.add(world.task(task).seed)
    assert len(seeds) == 2


def test_miners_are_kept_by_account() -> None:
    world = World()
    task = world.opened(4, 1, 3, 2)
    state = world.task(task)
    assert [one.account for one in state.miners] == sorted(world.ids[1:5])
    assert all(state.miner(world.ids[who]) is not None for who in (1, 2, 3, 4))
    assert state.miner(world.ids[5]) is None


def test_a_newcomer_counts_from_the_next_round() -> None:
    world = World()
    task = world.opened(1, 2)
    world.execute(world.enrol(3, task))
    newcomer = world.task(task).miner(world.ids[3])
    assert newcomer is not None
    assert newcomer.joined_round == 1
    early = world.commitment(3, task)
    receipts = world.execute(
        world.seal(task, sorted([world.commitment(1, task), world.commitment(2, task), early], key=_miner(world)))
    ).receipts
    assert [one.reason for one in receipts] == ["", f"miner {short(world.ids[3])} is not expected in round 0"]
    world.execute(world.update(task))
    late = world.task(task).miner(world.ids[3])
    assert late is not None
    assert late.missed == 0
    world.played(task, 1, 2, 3)
    assert world.row(task, 1, 3).pay_micro > 0


def test_enrolling_again_is_refused_unless_it_changes_something() -> None:
    world = World()
    task = world.opened(1, 2)
    assert world.reasons(world.enrol(1, task, 1)) == ["already enrolled with 1 units"]
    assert world.reasons(world.enrol(1, task, 2)) == [""]
    assert world.reasons(world.enrol(1, task, 2)) == ["already enrolled with 2 units"]


def test_a_change_of_units_takes_effect_with_the_next_window_that_is_fixed() -> None:
    world = World()
    task = world.opened(1, 2)
    world.execute(world.enrol(1, task, 5))
    in_force = []
    for _ in range(9):
        miner = world.task(task).miner(world.ids[1])
        assert miner is not None
        in_force.append(miner.units)
        world.played(task, 1, 2)
    # Fixed at the edge of round 4 for the window that begins at 8.
    assert in_force == [1] * 8 + [5]
    window = world.task(task).window
    assert {one.miner: one.units for one in window.members} == {world.ids[1]: 5, world.ids[2]: 1}


def test_who_leaves_and_comes_back_keeps_the_units_of_its_window() -> None:
    world = World()
    task = world.opened(1, 2)
    world.execute(world.leave(1, task), world.enrol(1, task, 7, nonce=world.account(1).nonce + 1))
    miner = world.task(task).miner(world.ids[1])
    assert miner is not None
    assert (miner.units, miner.units_next, miner.joined_round) == (1, 7, 1)


def test_units_that_could_overflow_or_cost_too_much_are_refused() -> None:
    world = World()
    tight = world.opened(escrow_micro=10 * 8 * 1003)
    assert world.reasons(world.enrol(1, tight, 11)) == [
        "a round of 11 units costs 88264 micro-units, the escrow holds 80240"
    ]
    assert world.reasons(world.enrol(1, tight, 6)) == [""]
    assert world.reasons(world.enrol(2, tight, 5)) == [
        "a round of 11 units costs 88264 micro-units, the escrow holds 80240"
    ]
    assert world.reasons(world.enrol(2, tight, 4)) == [""]

    narrow = world.opened(encoding=EncodingSpec("int8", 256, -50, 0))
    assert world.reasons(world.enrol(1, narrow, 65)) == ["sums of 65 units could overflow, at most 64 units fit"]
    assert world.reasons(world.enrol(1, narrow, 64)) == [""]

    wide = world.opened(unit_batch=8192, pay_micro=0)
    assert world.reasons(world.enrol(1, wide, 129)) == ["129 units are more than 1048576 samples"]


def test_units_fixed_for_the_next_window_are_counted_though_their_miner_asked_for_fewer_since() -> None:
    world = World()
    task = world.opened(1, 2, escrow_micro=1000 * 8 * 1003)
    world.execute(world.enrol(1, task, 200))
    for _ in range(4):
        world.played(task, 1, 2)
    world.execute(world.enrol(1, task, 1))  # but the window of round 8 has 200
    held = world.task(task).escrow_micro // (8 * 1003)
    assert held == 992
    for who in (3, 4, 5):
        assert world.reasons(world.enrol(who, task, 255)) == [""]
    assert world.reasons(world.enrol(6, task, 27)) == [
        f"a round of 993 units costs {993 * 8024} micro-units, the escrow holds {992 * 8024}"
    ]
    assert world.reasons(world.enrol(6, task, 26)) == [""]


def test_who_leaves_is_still_paid_for_what_was_sealed() -> None:
    world = World(vest_rounds=1, audit_rounds=4)
    task = world.opened(1, 2, 5)
    world.played(task, 1, 2)  # the third came when two had begun
    world.sealed(task, 1, 2, 5)
    world.execute(world.leave(5, task))
    before = world.account(5).balance_micro
    assert world.reasons(world.update(task)) == [""]
    bond = world.ledger.bond(task, world.ids[5])
    assert bond is not None
    assert world.task(task).miner(world.ids[5]) is None
    for _ in range(5):
        world.played(task, 1, 2)
    pay = 8 * 1003 - 8 * 1003 * 150_000 // 1_000_000
    assert world.account(5).balance_micro == before + pay + bond.amount_micro


def test_leaving_what_one_is_not_in_is_refused() -> None:
    world = World()
    task = world.opened(1)
    assert world.reasons(world.leave(2, task)) == [f"not enrolled for task {short(task)}"]
    assert world.reasons(world.leave(2, NOTHING)) == ["there is no task 00000000"]
    assert world.reasons(world.enrol(2, NOTHING)) == ["there is no task 00000000"]


def test_nobody_enrols_for_what_is_done() -> None:
    world = World()
    task = world.opened(1, 2, rounds=1)
    world.played(task, 1, 2)
    assert world.reasons(world.enrol(3, task)) == [f"task {short(task)} is done"]


def test_a_newcomer_takes_the_place_of_a_suspended_miner_when_a_task_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks_module, "miners_max", lambda validators: 3)
    world = World(misses_max=1)
    task = world.opened(1, 2, 3)
    assert world.reasons(world.enrol(4, task)) == ["there are 3 miners, none of them suspended"]
    for _ in range(2):
        world.played(task, 1, 2)
    assert world.reasons(world.enrol(4, task)) == [""]
    assert [one.account for one in world.task(task).miners] == sorted(world.ids[i] for i in (1, 2, 4))


def test_the_oldest_finished_task_is_forgotten_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks_module, "TASKS_MAX", 3)
    world = World(settle_heights=4)
    waiting, first, second = world.opened(), world.opened(1, 2, rounds=1), world.opened(1, 2, rounds=1)
    world.played(first, 1, 2)
    nothing = ["there are 3 tasks, none of them finished and settled"]
    assert world.reasons(world.submit(0, 100_000, spec())) == nothing
    world.played(second, 1, 2)
    for _ in range(4):
        world.execute()
    assert world.ledger.settling() == ()
    third = world.opened()
    assert world.ledger.task_ids() == (waiting, second, third)
    assert (world.ledger.task(first), world.ledger.spec(first)) == (None, None)


def test_a_suspended_miner_is_back_with_its_announcement() -> None:
    world = World(misses_max=2)
    task = world.opened(1, 2, 3)
    for _ in range(3):
        world.played(task, 1, 2)
    suspended = world.task(task).miner(world.ids[3])
    assert suspended is not None
    assert (suspended.missed, suspended.suspended) == (2, True)
    assert world.reasons(world.enrol(3, task, 1)) == [""]
    back = world.task(task).miner(world.ids[3])
    assert back is not None
    assert (back.missed, back.suspended, back.joined_round) == (0, False, 4)
    world.played(task, 1, 2)
    world.played(task, 1, 2, 3)


def test_an_enrolment_wakes_a_task_that_then_has_enough_miners() -> None:
    world = World(lapses_max=2, misses_max=2)
    task = world.opened(1, 2)
    for _ in range(2):
        world.sealed(task, 1)
    asleep = world.task(task)
    assert (asleep.phase, asleep.round, asleep.lapses) == (Phase.ASLEEP, 2, 2)
    assert world.reasons(world.seal(task, [])) == ["a seal of round 2, the task is asleep before round 2"]
    assert world.reasons(world.enrol(1, task)) == [""]
    assert world.task(task).phase == Phase.ASLEEP
    assert world.reasons(world.enrol(2, task)) == [""]
    awake = world.task(task)
    assert (awake.phase, awake.round, awake.lapses) == (Phase.TRAINING, 2, 0)
    assert awake.seed != asleep.seed
    assert (awake.window.begins, awake.next_window.begins) == (2, 4)
    assert [one.miner for one in awake.window.members] == sorted((world.ids[1], world.ids[2]))
    world.played(task, 1, 2)


def test_outcomes_other_than_counted_are_not_paid() -> None:
    world = World()
    task = world.opened(1, 2, 3, 4, 5)
    world.played(task, 1, 2)
    world.sealed(task, 1, 2, 3, 4, 5)
    share = 8 * 1003 * 150_000 // 1_000_000
    outcomes = {3: Outcome.WITHHELD, 4: Outcome.MALFORMED, 5: Outcome.NON_FINITE}
    assert world.reasons(world.update(task, outcomes)) == [""]
    pay = 8 * 1003 - share
    assert [world.row(task, 1, who).pay_micro for who in (1, 2, 3, 4, 5)] == [pay, pay, 0, 0, 0]
    missed = [(miner.missed if (miner := world.task(task).miner(world.ids[i])) else None) for i in range(1, 6)]
    assert missed == [0, 0, 1, 1, 0]


def _miner(world: World) -> Any:
    by_key = {one.key: name for one, name in zip(world.people, world.ids, strict=True)}
    return lambda signed: by_key[signed.key]
