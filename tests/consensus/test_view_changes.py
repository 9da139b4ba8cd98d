"""View changes beyond the paper: retransmission, what stays due, and what costs no memory."""

from __future__ import annotations

from potd.consensus.events import (
    Awaited,
    Enter,
    Executed,
    Ignore,
    Received,
    Send,
    Suspect,
    Ticked,
)
from potd.consensus.replica import Replica
from potd.wire.blocks import Header
from potd.wire.consensus import NewView, Prepare, Status
from tests.consensus.cluster import group, headers, signer
from tests.consensus.parts import (
    PATIENCE,
    A,
    agreement,
    begin,
    commitment,
    leave,
    of_kind,
    proof,
    propose,
    replica,
    said,
    sent,
    ticks,
)


def test_view_changes_of_one_replica_are_kept_once_in_whatever_order_they_come() -> None:
    """A liar who claims ever other views, up or down, costs no memory."""
    backup = replica(1)
    for view in [*range(100, 50, -1), *range(200, 300)]:
        backup.step(Received(leave(3, view)))
    assert len(backup._view_changes) == 1


def test_ones_own_view_change_from_others_counts_for_nothing() -> None:
    """A home that was put back may have said it to a liar alone; what it remembers is what it begins a view with."""
    primary = replica(1)
    primary.step(Awaited("operation"))
    ticks(primary, PATIENCE)
    assert of_kind(primary.step(Received(leave(1, 2))), Ignore)
    effects = [effect for index in (0, 2, 3) for effect in primary.step(Received(leave(index)))]
    assert len(sent(effects, NewView)) == 1
    assert (primary.view, primary.active) == (1, True)


def test_who_lags_behind_a_view_is_shown_how_it_began() -> None:
    """Castro 2001, 5.2"""
    backup, message = replica(2), begin([leave(0), leave(1), leave(3, 1, [proof(A)])], [(1, A)])
    backup.step(Received(message))
    assert backup.step(said(3, Status(0, False, 0, 0)))[0] == Send(signer(3).key, message.signed)


def test_who_has_executed_a_slot_that_is_not_stable_is_sent_the_votes_of_the_new_view() -> None:
    """It must commit again, or those who have not executed the slot may lack a quorum for ever (seed 1286)."""
    backup = replica(2)
    propose(backup, A)
    assert [one.seq for one in sent(backup.step(said(3, Status(0, False, 0, 1))), Prepare)] == [1]
    backup.step(Ticked())
    assert not sent(backup.step(said(3, Status(0, False, 1, 1))), Prepare)


def test_a_peer_is_answered_once_a_tick_however_often_it_asks() -> None:
    backup = replica(2)
    propose(backup, A)
    assert backup.step(said(3, Status(0, False, 0, 0)))
    assert not backup.step(said(3, Status(0, False, 0, 0)))
    backup.step(Ticked())
    assert backup.step(said(3, Status(0, False, 0, 0)))


def test_two_replicas_need_each_other_and_one_needs_nobody() -> None:
    """f = 0 for n = 1 and n = 2."""
    assert [(group(size).faults, group(size).quorum) for size in (1, 2, 3)] == [(0, 1), (0, 2), (0, 2)]
    alone = replica(0, 1)
    alone.step(Awaited("operation"))
    assert of_kind(ticks(alone, PATIENCE), Enter) == [Enter(1, signer(0).key, "we are its primary")]


def executed_alone() -> tuple[Replica, Header]:
    """A backup that has executed height 1, and heard from nobody else that he has."""
    backup = replica(1)
    propose(backup, A)
    for index in (2, 3):
        backup.step(Received(agreement(index, A)))
        backup.step(Received(commitment(index, A)))
    (first,) = headers(A)
    backup.step(Executed(first))
    return backup, first


def test_a_height_that_is_executed_and_not_permanent_is_due_in_this_view_and_in_the_next() -> None:
    """4.4: whoever left the view just before executing needs a new one to come along, and others need its signature."""
    backup, _ = executed_alone()
    assert of_kind(ticks(backup, PATIENCE - 1), Suspect) == []
    assert of_kind(ticks(backup, 1), Suspect) == [Suspect(0, signer(0).key, f"{PATIENCE} ticks without slot 1")]
    entered = [effect for index in (2, 3) for effect in backup.step(Received(leave(index, 1, [proof(A)])))]
    assert of_kind(entered, Enter) != []
    assert of_kind(ticks(backup, 2 * PATIENCE - 1), Suspect) == []
    assert of_kind(ticks(backup, 1), Suspect) == [Suspect(1, signer(1).key, f"{2 * PATIENCE} ticks without slot 1")]


def test_a_height_that_is_permanent_is_due_no_more() -> None:
    backup, first = executed_alone()
    ticks(backup, PATIENCE - 1)
    for index in (2, 3):
        backup.step(said(index, first))
    assert backup.stable == 1
    assert of_kind(ticks(backup, 2 * PATIENCE), Suspect) == []


def test_nobody_is_timed_while_too_few_are_there_to_make_progress() -> None:
    """A replica that left its view for want of company would stay outside the view that the others begin with."""
    backup = replica(1)
    backup.step(Awaited("something"))
    for _ in range(10 * PATIENCE):
        assert of_kind(backup.step(Ticked(timed=False)), Suspect) == []
    for _ in range(PATIENCE - 1):
        assert of_kind(backup.step(Ticked()), Suspect) == []
    assert of_kind(backup.step(Ticked()), Suspect)
