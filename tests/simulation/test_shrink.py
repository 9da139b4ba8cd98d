"""A failing schedule is cut to what it takes to fail, and told as a story."""

from __future__ import annotations

import pytest

from potd.simulation.profiles import NAMES, draw
from potd.simulation.schedule import Crash, Cut, Event, Heal, Liar, Offer, Restart, Schedule
from potd.simulation.shrink import Shrinker, told


def test_nothing_is_left_but_what_it_takes_to_fail() -> None:
    schedule = draw(3, "hostile")
    offers = [one for one in schedule.events if isinstance(one, Offer)]
    needed: tuple[Event, ...] = (offers[1], offers[-1])

    def fails(other: Schedule) -> bool:
        lies = {lie for liar in other.liars for lie in liar.lies}
        return set(needed) <= set(other.events) and schedule.liars[0].lies[0] in lies

    least = Shrinker(fails).shrink(schedule)
    assert least.events == needed
    assert least.liars == (Liar(schedule.liars[0].who, schedule.liars[0].lies[:1]),)


@pytest.mark.parametrize("profile", NAMES)
def test_a_seed_draws_one_schedule_with_at_most_f_faulty_at_a_time(profile: str) -> None:
    for seed in range(60):
        schedule = draw(seed, profile)
        assert schedule == draw(seed, profile)
        assert 4 <= schedule.validators <= 10
        assert list(schedule.events) == sorted(schedule.events, key=lambda one: one.at_ms)
        liars = {one.who for one in schedule.liars}
        for event in schedule.events:
            assert max(faulty(schedule, event.at_ms), len(liars)) <= schedule.faults
            assert not isinstance(event, Restart) or event.who not in liars


def faulty(schedule: Schedule, at_ms: int) -> int:
    """Validators that lie, have crashed, or are cut off, at this time."""
    down = {one.who for one in schedule.liars}
    for event in schedule.events:
        if event.at_ms > at_ms:
            break
        match event:
            case Crash(_, who, _) if who < schedule.validators:
                down.add(who)
            case Restart(_, who):
                down.discard(who)
            case _:
                pass
    cuts: dict[tuple[int, int], None] = {}
    for event in schedule.events:
        if event.at_ms > at_ms:
            break
        match event:
            case Cut(_, sender, to):
                cuts[sender, to] = None
            case Heal():
                cuts.clear()
            case _:
                pass
    for who in range(schedule.validators):
        if sum(who in cut for cut in cuts) >= schedule.size - 1:
            down.add(who)
    return len(down)


def test_a_run_is_told_with_what_befell_whom_and_who_said_what() -> None:
    story = "\n".join(told(draw(4, "hostile")))
    for words in (
        "PRE-PREPARE view 0, seq 1",
        "COMMIT view 0",
        "EXECUTES height 1",
        "is offered an operation",
        "all heals",
    ):
        assert words in story
