"""Rounds: seals, updates, lapses, seeds, deadlines, evaluations, and the end of a task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from potd.ledger.entries import Phase
from potd.ledger.training import lower_median, sealed_commitments
from potd.wire.blocks import record_digest
from potd.wire.codec import decode
from potd.wire.envelope import Signed
from potd.wire.ids import NO_BLOB, NOTHING, digest, short
from potd.wire.rounds import Commitment, Evaluation, Measured, Named, Outcome, Step
from tests.ledger.world import BALANCE, VALIDATORS, World, blob, spec


def _sorted(world: World, *commitments: tuple[int, Signed]) -> list[Signed]:
    return [signed for _, signed in sorted(commitments, key=lambda one: world.ids[one[0]])]


def test_a_seal_keeps_the_commitments_and_an_update_moves_the_model() -> None:
    world = World()
    task = world.opened(1, 2)
    world.sealed(task, 1, 2)
    revealing = world.task(task)
    assert (revealing.phase, revealing.round) == (Phase.REVEALING, 0)
    assert [one.miner for one in sealed_commitments(revealing)] == sorted(world.ids[1:3])
    assert world.reasons(world.update(task)) == [""]
    after = world.task(task)
    assert (after.phase, after.round, after.counted_rounds) == (Phase.TRAINING, 1, 1)
    assert (after.model, after.momentum) == (blob("model 1"), blob("momentum 1"))
    assert after.aggregate == blob("aggregate 0")
    assert (after.seal, after.sealed) == (NOTHING, ())


def test_pay_is_by_the_sample_out_of_the_escrow_less_the_validators_share() -> None:
    world = World(fee_per_byte_micro=0, vest_rounds=6, audit_rounds=4, audit_pay_ppm=0)
    task = world.opened(5, 6, escrow_micro=10_000_000, rounds=40)
    world.execute(world.enrol(6, task, 3))
    for _ in range(8):
        world.played(task, 5, 6)
    before = [world.account(i).balance_micro for i in range(8)]
    carried, escrow = world.ledger.globals().fees_micro, world.task(task).escrow_micro
    world.played(task, 5, 6)
    one, three = 8 * 1003, 24 * 1003
    shares = one * 150_000 // 1_000_000 + three * 150_000 // 1_000_000
    each, rest = divmod(shares, VALIDATORS)
    more, rest = divmod(rest + carried, VALIDATORS)
    gained = [world.account(i).balance_micro - before[i] for i in range(8)]
    pay = [one - one * 150_000 // 1_000_000, three - three * 150_000 // 1_000_000]
    vested = pay[0]  # of round 2, in which both had one unit
    assert gained == [*[each + more] * 4, 0, vested, vested, 0]
    assert world.ledger.globals().fees_micro == rest
    assert world.task(task).escrow_micro == escrow - one - three
    assert [world.row(task, 8, who).pay_micro for who in (5, 6)] == pay
    earned = world.task(task).miner(world.ids[5])
    assert earned is not None
    assert earned.earned_micro == 9 * pay[0]
    for _ in range(6):
        before = [world.account(i).balance_micro for i in range(8)]
        world.played(task, 5, 6)
    assert [world.account(i).balance_micro - before[i] for i in (5, 6)] == pay


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"round": 7}, "a commitment to round 7 of task {task}"),
        ({"task": NOTHING}, "a commitment to round 0 of task 00000000"),
        ({"model": NOTHING}, "taken at model 00000000, not {model}"),
        ({"samples": 9}, "9 samples, assigned were 8"),
        ({"rig_class": "bf16"}, "not of the task's rig class, float32"),
        ({"miner": NOTHING}, "miner 00000000 is not expected in round 0"),
    ],
)
def test_a_commitment_whose_premise_does_not_hold_is_dropped_with_its_reason(
    changes: dict[str, Any], reason: str
) -> None:
    world = World()
    task = world.opened(1, 2, 3)
    bad = world.commitment(1, task, **changes)
    good = _sorted(world, (1, world.commitment(1, task)), (2, world.commitment(2, task)))
    seal = world.seal(task, [bad, *good])
    text = reason.format(task=short(task), model=short(world.task(task).model.root))
    receipts = world.execute(seal).receipts
    assert [(one.record, one.reason) for one in receipts] == [(record_digest(seal), ""), (record_digest(bad), text)]
    assert world.task(task).sealed == tuple(good)


def test_a_commitment_counts_once_in_order_and_under_its_miners_key() -> None:
    world = World()
    task = world.opened(1, 2)
    one, two = world.commitment(1, task), world.commitment(2, task)
    again = world.commitment(1, task, salt=digest("salt"))
    forged = world.people[3].sign(decode(two.payload, Commitment))
    nonsense = replace(one, payload=b"\x00")
    first, second = _sorted(world, (1, one), (2, two))
    receipts = world.execute(world.seal(task, [nonsense, forged, first, second, again])).receipts
    assert [receipt.reason for receipt in receipts] == [
        "",
        "not a commitment",
        f"key {short(world.people[3].key)} is not that of miner {short(world.ids[2])}",
        f"miner {short(world.ids[1])} twice or out of order",
    ]
    assert world.task(task).sealed == (first, second)


def test_a_seal_or_an_update_out_of_its_time_becomes_a_receipt_and_nothing_else() -> None:
    world = World()
    task = world.opened(1, 2)
    seal = world.seal(task, _sorted(world, (1, world.commitment(1, task)), (2, world.commitment(2, task))))
    early = world.update(task)
    assert world.reasons(early) == ["an update of round 0, the task is training round 0"]
    assert world.reasons(seal, seal) == ["", "a seal of round 0, the task is revealing round 0"]
    update = world.update(task)
    assert world.reasons(update, update) == ["", "an update of round 0, the task is training round 1"]
    before = world.task(task)
    assert world.reasons(seal, update) == [
        "a seal of round 0, the task is training round 1",
        "an update of round 0, the task is training round 1",
    ]
    assert world.task(task) == before
    assert world.reasons(replace(seal, task=NOTHING, commitments=()), replace(update, task=NOTHING)) == [
        "there is no task 00000000",
        "there is no task 00000000",
    ]


def test_an_update_must_speak_of_each_sealed_commitment() -> None:
    world = World()
    task = world.opened(1, 2)
    world.sealed(task, 1, 2)
    update = world.update(task)
    first, second = update.contributions
    before = world.task(task)
    for contributions in ((first,), (second, first), (first, second, second), ()):
        assert world.reasons(replace(update, contributions=contributions)) == [
            "an update that does not speak of what was sealed, each once and in order"
        ]
    assert world.task(task) == before


def test_a_seal_of_too_few_lapses() -> None:
    world = World()
    task = world.opened(1, 2)
    before, paid = world.task(task), world.account(1).balance_micro
    receipts = world.sealed(task, 1).receipts
    assert [one.reason for one in receipts] == [""]
    after = world.task(task)
    assert (after.phase, after.round, after.lapses, after.counted_rounds) == (Phase.TRAINING, 1, 1, 0)
    assert after.seed != before.seed
    assert (after.model, after.escrow_micro) == (before.model, before.escrow_micro)
    assert world.account(1).balance_micro == paid
    missed = [(one.account, one.missed) for one in after.miners]
    assert missed == sorted([(world.ids[1], 0), (world.ids[2], 1)])


@pytest.mark.parametrize("why", ["withheld", "no aggregate"])
def test_an_update_in_which_too_few_count_lapses(why: str) -> None:
    world = World()
    task = world.opened(1, 2)
    world.sealed(task, 1, 2)
    before, paid = world.task(task), world.account(1).balance_micro
    if why == "withheld":
        update = world.update(task, {2: Outcome.WITHHELD})
    else:
        update = replace(world.update(task), aggregate=NO_BLOB, model=NO_BLOB, momentum=NO_BLOB)
    assert world.reasons(update) == [""]
    after = world.task(task)
    assert (after.phase, after.round, after.lapses, after.counted_rounds) == (Phase.TRAINING, 1, 1, 0)
    assert (after.model, after.momentum, after.escrow_micro) == (before.model, before.momentum, before.escrow_micro)
    assert (after.seal, after.sealed) == (NOTHING, ())
    assert world.account(1).balance_micro == paid


def test_a_round_that_counts_ends_a_row_of_lapses() -> None:
    world = World()
    task = world.opened(1, 2)
    for _ in range(2):
        world.sealed(task, 1)
    assert world.task(task).lapses == 2
    world.played(task, 1, 2)
    assert (world.task(task).lapses, world.task(task).round) == (0, 3)


def test_a_row_of_lapses_puts_the_task_to_sleep() -> None:
    world = World()
    task = world.opened(1, 2)
    phases = []
    for _ in range(3):
        world.sealed(task, 1)
        phases.append(world.task(task).phase)
    assert phases == [Phase.TRAINING, Phase.TRAINING, Phase.ASLEEP]


def test_a_row_of_missed_rounds_suspends_and_a_counted_one_ends_the_row() -> None:
    world = World()
    task = world.opened(1, 2, 3)
    world.played(task, 1, 2)
    world.played(task, 1, 2)
    world.sealed(task, 1, 2, 3)
    world.execute(world.update(task, {3: Outcome.WITHHELD}))
    assert _miner(world, task, 3) == (2, False)
    world.played(task, 1, 2, 3)
    assert _miner(world, task, 3) == (0, False)
    for _ in range(3):
        world.played(task, 1, 2)
    assert _miner(world, task, 3) == (3, True)
    late = world.commitment(3, task)
    receipts = world.execute(
        world.seal(task, _sorted(world, (1, world.commitment(1, task)), (2, world.commitment(2, task)), (3, late)))
    ).receipts
    assert f"miner {short(world.ids[3])} is not expected in round 7" in [one.reason for one in receipts]


def test_a_suspended_miner_is_not_in_the_windows_fixed_since() -> None:
    world = World(misses_max=1)
    task = world.opened(1, 2, 3)
    for _ in range(8):
        world.played(task, 1, 2)
    state = world.task(task)
    for window in (state.window, state.next_window):
        assert [one.miner for one in window.members] == sorted(world.ids[1:3])


def test_windows_follow_each_other_with_seeds_final_a_window_ahead() -> None:
    world = World()
    task = world.opened(1, 2)
    seen = []
    for _ in range(12):
        state = world.task(task)
        seen.append((state.round, state.window, state.next_window))
        world.played(task, 1, 2)
    for round_, window, following in seen:
        assert (window.begins, following.begins) == (round_ // 4 * 4, round_ // 4 * 4 + 4)
    for (_, _, ahead), (round_, window, _) in pairwise(seen):
        if round_ % 4 == 0:
            assert window == ahead
    assert len({window.seed for _, window, _ in seen}) == 3


def test_who_makes_a_seal_that_lapses_has_no_say_in_the_seed_that_follows() -> None:
    """There is no end of such seals, and no link of an honest validator is in that seed."""

    def seed_after(ticks: int) -> bytes:
        world = World()
        task = world.opened(1, 2)
        world.execute(world.seal(task, [world.commitment(1, task)], [0, 0, 0, ticks]))
        assert (world.task(task).round, world.task(task).lapses) == (1, 1)
        return world.task(task).seed

    assert seed_after(1) == seed_after(2)


def test_the_seed_hangs_on_the_last_seed_the_seal_and_the_links_that_an_honest_report_names() -> None:
    def seed_after(*names: str, miners: Sequence[int] = (1, 2)) -> bytes:
        """Of four reports, whose links are named by letters."""
        world = World()
        task = world.opened(1, 2, 3, rounds=20)
        world.execute(world.chain(0, task), world.chain(3, task))
        for _ in range(3):
            world.played(task, 1, 2)
        number = world.task(task).round
        known = {
            "a": Named(world.ids[0], world.link(0, task, number, "seeds")),
            "b": Named(world.ids[3], world.link(3, task, number, "seeds")),
            "x": Named(world.ids[0], digest("no link")),
            "y": Named(world.ids[1], world.link(0, task, number, "seeds")),
            "z": Named(world.ids[0], world.link(0, task, number - 1, "seeds")),
        }
        world.sealed(task, *miners)
        links = [sorted(known[letter] for letter in each) for each in names]
        world.execute(world.update(task, reports=world.reports(task, Step.UPDATE, links=links)))
        return world.task(task).seed

    bare = seed_after("", "", "", "")
    assert seed_after("a", "", "", "") == bare  # one of four may lie
    with_a = seed_after("a", "", "a", "")
    assert with_a != bare
    assert seed_after("", "a", "a", "ab") == with_a  # how many more name it is no part of it
    assert seed_after("ab", "ab", "", "") not in (with_a, bare)
    assert seed_after("", "", "", "", miners=(1, 2, 3)) != bare
    for lie in "xyz":  # what is no link, not its own, or of another round
        assert seed_after(lie, lie, lie, lie) == bare


def test_the_deadline_is_twice_the_last_arrival_as_most_saw_it_and_a_little() -> None:
    world = World()
    task = world.opened(1, 2, 3)
    world.played(task, 1, 2)
    commitments = _sorted(world, (1, world.commitment(1, task)), (2, world.commitment(2, task)))
    world.execute(world.seal(task, commitments, [20, 30, 40, 1_000_000]))
    assert world.task(task).deadline_ticks == 64  # the lower median is 30


def test_who_names_nothing_has_seen_nothing_arrive() -> None:
    """Or validators that were cut off would make every round shorter than the slowest miner."""
    world = World()
    task = world.opened(1, 2, 3)
    world.played(task, 1, 2)
    commitments = _sorted(world, (1, world.commitment(1, task)), (2, world.commitment(2, task)))
    world.execute(world.seal(task, commitments, [None, 30, None, None]))
    assert world.task(task).deadline_ticks == 64


def test_a_validator_counts_once_for_the_deadline_and_a_stranger_never() -> None:
    world = World()
    task = world.opened(1, 2, 3)
    world.played(task, 1, 2)
    commitments = _sorted(world, (1, world.commitment(1, task)), (2, world.commitment(2, task)))
    seal = world.seal(task, commitments, [30, 40, 50, 60])
    stranger = replace(seal.reports[0], key=bytes(32))
    often = replace(
        seal,
        reports=(*seal.reports, *seal.reports[:1] * 5, *(stranger,) * 5),
        held=(*seal.held, *seal.held[:1] * 10),
        ticks=(*seal.ticks, *(0,) * 10),
    )
    world.execute(often)
    assert world.task(task).deadline_ticks == 84


@pytest.mark.parametrize(("arrival", "deadline"), [(0, 10), (3, 10), (4, 12), (98, 200), (1_000_000, 200)])
def test_the_deadline_stays_within_the_tasks_bounds(arrival: int, deadline: int) -> None:
    world = World()
    task = world.opened(1, 2)
    commitments = _sorted(world, (1, world.commitment(1, task)), (2, world.commitment(2, task)))
    world.execute(world.seal(task, commitments, [arrival] * 4))
    assert world.task(task).deadline_ticks == deadline


def test_a_lapse_for_want_of_commitments_doubles_the_deadline() -> None:
    world = World()
    task = world.opened(1, 2)
    world.played(task, 1, 2)
    assert world.task(task).deadline_ticks == 10
    world.sealed(task, 1)
    assert world.task(task).deadline_ticks == 20


def test_an_evaluation_is_the_lower_median_of_what_enough_have_measured() -> None:
    world = World()
    task = world.opened(1, 2)
    for _ in range(2):
        world.played(task, 1, 2)
    measured = [(Measured(2, 90, 100, 700),), (Measured(2, 92, 100, 500),), (), (Measured(2, 91, 100, -5),)]
    assert world.reasons(world.evaluation(task, 2, measured)) == [""]
    assert world.task(task).measured == (Measured(2, 91, 100, 500),)


def test_an_evaluation_that_is_old_early_or_by_too_few_is_refused() -> None:
    world = World()
    task = world.opened(1, 2)
    for _ in range(2):
        world.played(task, 1, 2)
    known = Measured(1, 90, 100, 700)
    assert world.reasons(world.evaluation(task, 1, [(known,)] * 4)) == [""]
    for number, reason in (
        (0, "an evaluation of round 0, that of 1 is known"),
        (1, "an evaluation of round 1, that of 1 is known"),
        (3, "an evaluation of round 3, the task is training round 2"),
    ):
        assert world.reasons(world.evaluation(task, number, [(replace(known, round=number),)] * 4)) == [reason]
    few = [(replace(known, round=2),), (known,), (), ()]
    assert world.reasons(world.evaluation(task, 2, few)) == ["an evaluation by 1 validators, 2 are needed"]
    nowhere = replace(world.evaluation(task, 2, few), task=NOTHING)
    assert world.reasons(nowhere) == ["there is no task 00000000"]
    assert world.task(task).measured == (known,)


def test_reports_of_strangers_and_doubles_and_on_other_things_do_not_speak() -> None:
    world = World()
    task = world.opened(1, 2)
    mine = Measured(0, 1, 2, 3)
    one, *_ = world.reports(task, Step.EVALUATION, measured=[(mine,)] * 4)
    stranger = Signed(world.people[7].key, one.payload, one.signature)
    others = world.reports(task, Step.SEAL, measured=[(mine,)] * 4)
    later = world.reports(task, Step.EVALUATION, number=1, measured=[(mine,)] * 4)
    nonsense = Signed(world.people[1].key, b"\x00", one.signature)
    evaluation = Evaluation(task, 0, (one, one, stranger, *others, *later, nonsense))
    assert world.reasons(evaluation) == ["an evaluation by 1 validators, 2 are needed"]


def test_the_last_model_is_evaluated_when_its_task_is_done() -> None:
    world = World()
    task = world.opened(1, 2, rounds=1)
    world.played(task, 1, 2)
    final = Measured(1, 97, 100, 80_000)
    assert world.reasons(world.evaluation(task, 1, [(final,)] * 4)) == [""]
    assert (world.task(task).phase, world.task(task).measured) == (Phase.DONE, (final,))


def test_the_loss_is_the_lower_median_of_what_counted() -> None:
    world = World()
    task = world.opened(1, 2, 3, 4)
    world.played(task, 1, 2)
    world.sealed(task, 1, 2, 3, 4)
    world.execute(world.update(task, {1: Outcome.MALFORMED}))
    assert world.task(task).loss_micro == 1_000_003
    assert [lower_median(one) for one in ([5], [1, 9], [3, 1, 2], [4, 1, 3, 2])] == [5, 1, 2, 2]


def test_a_task_is_done_when_its_rounds_are_used_up_and_the_rest_goes_back() -> None:
    world = World(fee_per_byte_micro=0, audit_pay_ppm=0)
    task = world.opened(5, 6, rounds=3)
    world.played(task, 5, 6)
    world.sealed(task, 5)  # lapses
    world.played(task, 5, 6)
    state = world.task(task)
    assert (state.phase, state.round, state.counted_rounds, state.escrow_micro) == (Phase.DONE, 3, 2, 0)
    spent, shares = 4 * 8 * 1003, 4 * (8 * 1003 * 150_000 // 1_000_000)
    assert world.account(0).balance_micro == BALANCE - spent + shares // 4
    assert world.reasons(world.seal(task, [])) == ["a seal of round 3, the task is done"]


def test_a_lapse_may_be_the_last_round() -> None:
    world = World(lapses_max=1)
    task = world.opened(5, 6, rounds=1)
    world.sealed(task, 5)
    state = world.task(task)
    assert (state.phase, state.round, state.escrow_micro) == (Phase.DONE, 1, 0)


def test_a_task_is_done_when_the_escrow_cannot_pay_the_next_round() -> None:
    world = World()
    task = world.opened(1, 2, escrow_micro=5 * 8 * 1003)
    world.played(task, 1, 2)
    assert world.task(task).phase == Phase.TRAINING
    before = world.account(0).balance_micro
    world.played(task, 1, 2)
    state = world.task(task)
    assert (state.phase, state.round, state.escrow_micro) == (Phase.DONE, 2, 0)
    assert world.account(0).balance_micro > before + 8 * 1003


def test_a_task_whose_miners_are_gone_is_done_when_its_least_number_could_not_be_paid() -> None:
    world = World()
    task = world.opened(1, 2, escrow_micro=3 * 8 * 1003)
    world.sealed(task, 1, 2)
    world.execute(world.leave(1, task), world.leave(2, task))
    world.execute(world.update(task))
    assert world.task(task).phase == Phase.DONE


def test_a_task_of_the_same_spec_is_another_task() -> None:
    world = World()
    one, other = world.opened(1, 2), world.opened(1, 2)
    assert one != other
    assert world.task(one).seed != world.task(other).seed
    assert world.ledger.spec(one) == world.ledger.spec(other) == spec()


def _miner(world: World, task: bytes, who: int) -> tuple[int, bool]:
    miner = world.task(task).miner(world.ids[who])
    assert miner is not None
    return miner.missed, miner.suspended
