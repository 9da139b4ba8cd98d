"""The current model is at hand by the cheapest road, and never one that nobody agreed on."""

from __future__ import annotations

from dataclasses import replace

from potd.rounds.events import Effect, Fetch, Retire, Run, Told, Unfetch
from potd.rounds.keeper import KEEP_ROUNDS, Desk
from potd.wire.ids import NO_BLOB
from potd.wire.jobs import Applied, Apply, Failed
from tests.rounds.bench import KEYS, SPEC, TRAIN, Bench, blob, only, opened_after

NEXT = opened_after(TRAIN, 4)
LATER = opened_after(TRAIN, 5)


def holding_round_3() -> Bench:
    bench = Bench(0, TRAIN.model, TRAIN.momentum)
    assert bench.keeper.on_changed(TRAIN) == []
    assert bench.keeper.ready()
    return bench


def test_who_starts_with_nothing_fetches_model_and_momentum() -> None:
    bench = Bench(0)
    assert bench.keeper.on_changed(TRAIN) == [Fetch(TRAIN.model, KEYS), Fetch(TRAIN.momentum, KEYS)]
    assert not bench.keeper.ready()
    bench.held.update((TRAIN.model, TRAIN.momentum))
    assert bench.keeper.ready()


def test_before_the_first_step_there_is_no_momentum_to_fetch() -> None:
    first = replace(TRAIN, round=0, momentum=NO_BLOB, aggregate=NO_BLOB)
    assert Bench(0).keeper.on_changed(first) == [Fetch(TRAIN.model, KEYS)]


def test_who_has_worked_out_the_model_fetches_nothing() -> None:
    bench = holding_round_3()
    bench.held.update((NEXT.model, NEXT.momentum))
    assert bench.keeper.on_changed(NEXT) == []


def test_who_holds_the_model_before_applies_the_aggregate() -> None:
    bench = holding_round_3()
    assert bench.keeper.on_changed(NEXT) == [Fetch(NEXT.aggregate, KEYS)]
    assert bench.keeper.advance() == []
    bench.held.add(NEXT.aggregate)
    job = Apply(1, SPEC, 3, TRAIN.model, TRAIN.momentum, NEXT.aggregate)
    assert bench.keeper.advance() == [Run("arithmetic", job)]
    assert bench.keeper.advance() == [], "one job at a time"
    bench.held.update((NEXT.model, NEXT.momentum))
    assert bench.keeper.on_answer(Applied(1, NEXT.model, NEXT.momentum, 1)) == []


def test_a_result_that_nobody_agreed_on_is_thrown_away() -> None:
    bench = holding_round_3()
    bench.held.add(NEXT.aggregate)
    bench.keeper.on_changed(NEXT)
    effects = bench.keeper.on_answer(Applied(1, blob("something else"), NEXT.momentum, 1))
    assert effects == [Fetch(NEXT.model, KEYS), Fetch(NEXT.momentum, KEYS)]


def test_a_job_that_fails_leaves_the_longer_road() -> None:
    bench = holding_round_3()
    bench.held.add(NEXT.aggregate)
    bench.keeper.on_changed(NEXT)
    effects = bench.keeper.on_answer(Failed(1, "the worker died"))
    told = Told("apply failed", (("reason", "the worker died"),))
    assert effects == [told, Fetch(NEXT.model, KEYS), Fetch(NEXT.momentum, KEYS)]


def test_a_round_that_comes_before_the_last_was_applied_is_fetched_whole() -> None:
    bench = holding_round_3()
    bench.held.add(NEXT.aggregate)
    bench.keeper.on_changed(NEXT)
    effects = bench.keeper.on_changed(LATER)
    assert effects == [
        Unfetch(NEXT.model),
        Unfetch(NEXT.momentum),
        Fetch(LATER.model, KEYS),
        Fetch(LATER.momentum, KEYS),
    ]
    late = bench.keeper.on_answer(Applied(1, NEXT.model, NEXT.momentum, 1))
    assert only(late, Run) == []
    assert not bench.keeper.ready()


def test_a_lapsed_round_moves_nothing() -> None:
    bench = holding_round_3()
    assert bench.keeper.on_changed(replace(TRAIN, round=4)) == []


def test_an_answer_to_somebody_elses_job_is_not_ours() -> None:
    bench = holding_round_3()
    assert bench.keeper.on_answer(Failed(99, "not ours")) == []


def test_models_are_kept_for_late_joiners_and_then_let_go() -> None:
    bench = Bench(0, SPEC.weights)
    first = replace(opened_after(TRAIN, 0), momentum=NO_BLOB, aggregate=NO_BLOB)
    retired: list[Retire] = []
    view = first
    for number in range(1, KEEP_ROUNDS + 3):
        bench.keeper.on_changed(view)
        view = opened_after(TRAIN, number)
        bench.held.update((view.model, view.momentum))
        retired += [one for one in bench.keeper.on_changed(view) if isinstance(one, Retire)]
    gone = [ref for one in retired for ref in one.refs]
    assert gone == [blob("model 1"), blob("momentum 1"), blob("aggregate 1")], "the initial weights stay"


def test_models_are_kept_as_long_as_a_round_may_be_audited() -> None:
    assert Desk(set(), iter(()), KEEP_ROUNDS + 5).keep_rounds == KEEP_ROUNDS + 5
    bench = Bench(0, SPEC.weights)
    bench.desk.keep_rounds = KEEP_ROUNDS + 1
    retired: list[Effect] = []
    for number in range(1, KEEP_ROUNDS + 4):
        view = opened_after(TRAIN, number)
        bench.held.update((view.model, view.momentum))
        retired += [one for one in bench.keeper.on_changed(view) if isinstance(one, Retire)]
    assert [one.refs[0] for one in retired if isinstance(one, Retire)] == [blob("model 1")]
