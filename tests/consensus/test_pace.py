"""A primary that brings what is due, but never quickly, is given up; one that is as quick as those before it is not."""

from __future__ import annotations

from potd.consensus.events import Awaited, Effect, Received, Settled, Suspect, Ticked
from potd.consensus.pace import FACTOR, SAMPLES, Pace
from potd.consensus.replica import Replica
from tests.consensus.cluster import group, signer
from tests.consensus.parts import begin, leave, of_kind

PATIENCE = 80


def replica() -> Replica:
    return Replica(signer(2), group(4), patience_ticks=PATIENCE, window=8)


def bring(one: Replica, ticks: int, times: int) -> list[Effect]:
    """Something is due, and comes after so many ticks; again and again."""
    effects: list[Effect] = []
    for number in range(times):
        effects += one.step(Awaited(f"operation {number}"))
        for _ in range(ticks):
            effects += one.step(Ticked())
        effects += one.step(Settled(f"operation {number}"))
    return effects + one.step(Ticked())


def next_view(one: Replica) -> None:
    view = one.view if not one.active else one.view + 1
    one.step(Received(begin([leave(index, view) for index in (0, 1, 3)], view=view)))
    assert one.active
    assert one.view == view


def test_a_primary_that_always_stays_just_below_the_patience_is_given_up_all_the_same() -> None:
    """Clement et al. 2009, 5.2: else it could hold the replicas to a crawl for ever."""
    backup = replica()
    [given_up] = of_kind(bring(backup, PATIENCE - 1, SAMPLES), Suspect)
    assert given_up.reason == f"{PATIENCE - 1} ticks at the median for what is due, where {PATIENCE // 8} are allowed"


def test_a_few_slow_things_are_no_reason() -> None:
    backup = replica()
    effects = bring(backup, PATIENCE - 1, SAMPLES // 2 - 1) + bring(backup, 1, SAMPLES)
    assert not of_kind(effects, Suspect)


def test_a_network_that_is_slow_under_every_primary_replaces_one_and_then_goes_on() -> None:
    backup, slow = replica(), PATIENCE // 2
    assert of_kind(bring(backup, slow, SAMPLES), Suspect)
    next_view(backup)
    assert not of_kind(bring(backup, slow, 4 * SAMPLES), Suspect)


def test_a_primary_is_measured_by_those_before_it() -> None:
    pace = Pace(800, 4)
    assert pace.allowed() == 100
    for taken in (200, 40, 60):
        for _ in range(SAMPLES):
            for _ in range(taken):
                pace.tick(due=True)
            pace.came()
        pace.entered()
    assert pace.allowed() == FACTOR * 61, "the median of 200, 40 and 60, and one tick"


def test_time_in_which_nothing_is_due_makes_nobody_slow() -> None:
    backup = replica()
    for _ in range(SAMPLES):
        for _ in range(PATIENCE):
            backup.step(Ticked())
        assert not of_kind(bring(backup, 1, 1), Suspect)


def test_what_comes_together_counts_once() -> None:
    """Else a slow primary could hide behind large batches."""
    pace = Pace(PATIENCE, 4)
    for _ in range(SAMPLES):
        for _ in range(PATIENCE // 2):
            pace.tick(due=True)
        for _ in range(100):
            pace.came()
    assert pace.slow()
