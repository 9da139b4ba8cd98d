"""Refusals: counted by reason within bounds, forgiven with time, held against nobody else."""

from __future__ import annotations

from potd.runtime.refusals import ALLOWED, FORGIVEN_PER_S, OTHER, REASONS_MAX, Refusals
from tests.runtime.cable import key


def test_a_peer_may_be_refused_so_often_at_once_and_no_more() -> None:
    refusals = Refusals(clock=lambda: 0.0)
    assert not any(refusals.count(key(1), "late") for _ in range(ALLOWED))
    assert refusals.count(key(1), "late")
    assert not refusals.count(key(2), "late")
    assert refusals.by_reason == {"late": ALLOWED + 2}


def test_refusals_are_forgiven_with_time() -> None:
    now = [0.0]
    refusals = Refusals(clock=lambda: now[0])
    for _ in range(10 * ALLOWED):
        now[0] += 1 / FORGIVEN_PER_S
        assert not refusals.count(key(1), "late")


def test_a_peer_cannot_invent_reasons_without_end() -> None:
    refusals = Refusals(clock=lambda: 0.0)
    for number in range(REASONS_MAX + 50):
        refusals.count(key(1), f"mistake {number}")
    assert len(refusals.by_reason) == REASONS_MAX + 1
    assert refusals.by_reason[OTHER] == 50
