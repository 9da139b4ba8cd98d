"""Claims of sections 4.4 and 4.5: leaving a view, what must be shown, what is carried over, and when to go on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from potd.consensus.events import (
    Awaited,
    Broadcast,
    Deliver,
    Effect,
    Enter,
    Executed,
    FetchBatch,
    Follow,
    Held,
    Ignore,
    Judge,
    Persist,
    Received,
    Reject,
    Send,
    Suspect,
    Ticked,
)
from potd.consensus.replica import Replica
from potd.consensus.view_change import NULL_DIGEST, carry_over
from potd.wire.blocks import NULL, Header, batch_digest
from potd.wire.consensus import Commit, NewView, Prepare, PrePrepare, Status, ViewChange
from potd.wire.envelope import Verified
from tests.consensus.cluster import ELSEWHERE, VIEW_SEQ, batch_of, group, headers, signer
from tests.consensus.parts import (
    PATIENCE,
    WINDOW,
    A,
    B,
    agreement,
    begin,
    certificate,
    commitment,
    leave,
    of_kind,
    order,
    proof,
    propose,
    replica,
    said,
    sent,
)

C = batch_of(b"c")


def ticks(one: Replica, count: int) -> list[Effect]:
    return [effect for _ in range(count) for effect in one.step(Ticked())]


def new_primary(*view_changes: Verified[ViewChange]) -> list[Effect]:
    """What n1 does with the view changes of others to its view 1."""
    one = replica(1)
    return [effect for message in view_changes for effect in one.step(Received(message))]


def test_a_view_change_is_written_before_it_is_sent_and_shows_what_was_prepared() -> None:
    """4.4"""
    backup = replica(1)
    propose(backup, A)
    backup.step(Received(agreement(2, A)))
    effects = ticks(backup, PATIENCE)
    vote = leave(1, 1, [proof(A)]).signed
    assert effects[-2:] == [Persist(VIEW_SEQ, vote), Broadcast(vote)]


def test_who_has_left_a_view_votes_in_it_no_more() -> None:
    """4.4"""
    backup = replica(2)
    backup.step(Awaited("operation"))
    ticks(backup, PATIENCE)
    assert not sent(propose(backup, A), Prepare)
    assert of_kind(backup.step(Received(agreement(3, A))), Ignore)


@pytest.mark.parametrize(
    "wrong",
    [
        leave(2, 1, [proof(A, by=(1,))]),
        leave(2, 1, [replace(proof(A), batch=batch_digest(B))]),
        leave(2, 1, [proof(A), proof(A)]),
        leave(2, 1, [proof(B, 2), proof(A, 1)]),
        leave(2, 1, [proof(A, WINDOW + 1)]),
        leave(2, 1, [proof(A, view=1)]),
        leave(2, 1, [replace(proof(A), backups=proof(A).backups[::-1])]),
        leave(2, 1, [replace(proof(A), primary=proof(A).backups[0])]),
        leave(2, 1, [], certificate(headers(A)[0], by=(0, 1))),
        signer(2).verified(ViewChange(1, 1, (), ())),
        signer(2).verified(ViewChange(1, 2, (certificate(headers(A)[0]),), ())),
        leave(2, 1, [], certificate(replace(headers(A)[0], network=ELSEWHERE))),
        leave(2, 1, [], certificate(headers(A)[0], by=(0, 1, 9))),
        leave(9, 1),
    ],
)
def test_a_view_change_that_proves_what_it_claims_wrongly_counts_for_nothing(wrong: Verified[ViewChange]) -> None:
    """4.4"""
    effects = new_primary(wrong, leave(3))
    assert of_kind(effects, Reject)
    assert not sent(effects, NewView)


def test_f_plus_1_that_leave_for_higher_views_are_joined_in_the_smallest() -> None:
    """4.5.2, second"""
    backup = replica(1)
    assert not sent(backup.step(Received(leave(2, 7))), ViewChange)
    assert [one.view for one in sent(backup.step(Received(leave(3, 5))), ViewChange)] == [5]


def test_one_liar_cannot_make_anybody_leave() -> None:
    """4.5.3: f replicas cannot force a view change by asking for one."""
    backup = replica(1)
    for view in (1, 2, 9, 2**40):
        assert not sent(backup.step(Received(leave(3, view))), ViewChange)
    assert backup.active


def test_view_changes_of_one_replica_are_kept_once_in_whatever_order_they_come() -> None:
    """A liar who claims ever other views, up or down, costs no memory."""
    backup = replica(1)
    for view in [*range(100, 50, -1), *range(200, 300)]:
        backup.step(Received(leave(3, view)))
    assert len(backup._view_changes) == 1


def test_the_new_primary_carries_over_what_was_prepared_and_fills_gaps_with_null_requests() -> None:
    """4.4: O"""
    effects = new_primary(leave(2, 1, [proof(C, 3)]), leave(3, 1, [proof(A, 1)]))
    [message] = set(sent(effects, NewView))
    orders = [order(A, 1, 1), order(NULL, 2, 1), order(C, 3, 1)]
    assert message.pre_prepares == tuple(one.signed for one in orders)


def test_of_two_proofs_for_one_slot_the_later_view_wins() -> None:
    """4.4: O"""
    old, new = proof(A, view=0), proof(B, view=1, by=(2, 3))
    carried = carry_over([leave(0, 2, [old]).body, leave(2, 2, [new]).body, leave(3, 2).body])
    assert carried.orders == ((1, batch_digest(B)),)


def test_what_is_carried_begins_at_the_highest_stable_checkpoint() -> None:
    """4.4: min-s is the latest stable checkpoint in V."""
    stable = certificate(headers(A)[0])
    carried = carry_over([leave(0, 1, [], stable).body, leave(2, 1, [proof(A), proof(C, 3)]).body, leave(3, 1).body])
    assert carried.stable == 1
    assert carried.orders == ((2, NULL_DIGEST), (3, batch_digest(C)))


def test_a_quorum_of_view_changes_is_needed_to_begin() -> None:
    """4.4: V holds a quorum, its own included."""
    one = replica(1)
    assert not sent(one.step(Received(leave(2))), NewView)
    assert sent(one.step(Received(leave(3))), NewView)
    assert one.is_primary


def test_a_backup_enters_the_new_view_and_prepares_what_it_carries_without_judging_it_again() -> None:
    """4.4"""
    backup, name = replica(2), batch_digest(A)
    propose(backup, A)
    message = begin([leave(0), leave(1), leave(3, 1, [proof(A)])], [(1, A)])
    effects = backup.step(Received(message))
    assert effects[0] == Persist(VIEW_SEQ, message.signed)
    assert of_kind(effects, Enter) == [Enter(1, signer(1).key, "its primary showed a quorum of view changes")]
    assert not of_kind(effects, Judge)
    assert sent(effects, Prepare) == [Prepare(1, 1, name, order(A, view=1).signed.signature)]


def test_a_carried_batch_that_is_not_held_is_fetched_and_then_prepared() -> None:
    backup = replica(2)
    effects = backup.step(Received(begin([leave(0), leave(1), leave(3, 1, [proof(A)])], [(1, A)])))
    assert of_kind(effects, FetchBatch) == [FetchBatch(batch_digest(A))]
    effects = backup.step(Held(batch_digest(A), A))
    assert sent(effects, Prepare)
    assert not of_kind(effects, Judge)


QUORUM = [leave(0), leave(1), leave(3, 1, [proof(A)])]


@pytest.mark.parametrize(
    "wrong",
    [
        begin(QUORUM, []),
        begin(QUORUM, [(1, B)]),
        begin(QUORUM, [(1, NULL)]),
        begin(QUORUM, [(1, A), (2, B)]),
        begin(QUORUM, [(2, A)]),
        begin(QUORUM[:2], []),
        begin([*QUORUM[:2], QUORUM[0]], []),
        begin([*QUORUM[:2], leave(3, 2)], []),
        begin([*QUORUM[:2], leave(9)], []),
        begin([*QUORUM[:2], leave(3, 1, [proof(A, by=(1,))])], [(1, A)]),
        signer(3).verified(begin(QUORUM, [(1, A)]).body),
        signer(1).verified(replace(begin(QUORUM).body, pre_prepares=(signer(3).sign(PrePrepare(1, 1, NULL_DIGEST)),))),
        signer(1).verified(
            replace(begin(QUORUM).body, pre_prepares=(signer(1, ELSEWHERE).sign(PrePrepare(1, 1, NULL_DIGEST)),))
        ),
    ],
)
def test_a_new_view_that_does_not_follow_from_its_view_changes_is_refused(wrong: Verified[NewView]) -> None:
    """4.4: the backup computes O itself."""
    backup = replica(2)
    assert of_kind(backup.step(Received(wrong)), Reject)
    assert backup.view == 0


def test_a_new_view_is_entered_once() -> None:
    """4.4, and replays move nothing."""
    backup, message = replica(2), begin(QUORUM, [(1, A)])
    backup.step(Received(message))
    assert backup.step(Received(message)) == [Ignore(signer(1).key, "new view that is past")]


def test_a_replica_that_is_behind_takes_up_carried_orders_once_it_has_followed() -> None:
    """They lie above its high watermark at first, and must not be judged when they come within it."""
    behind = replica(2)
    chain = headers(*[batch_of(b"%d" % height) for height in range(1, WINDOW + 2)])
    stable, seq = certificate(chain[-1]), WINDOW + 2
    message = begin([leave(0, 1, [proof(A, seq)], stable), leave(1), leave(3)], [(seq, A)])
    assert Follow(WINDOW + 1) in behind.step(Received(message))
    assert FetchBatch(batch_digest(A)) in behind.followed(stable)
    effects = behind.step(Held(batch_digest(A), A))
    assert [one.seq for one in sent(effects, Prepare)] == [seq]
    assert not of_kind(effects, Judge)


def test_patience_doubles_with_every_view_that_brings_nothing() -> None:
    """4.5.2, first"""
    backup, waited = replica(3), []
    for view in (1, 2):  # n3 itself is the primary of view 3
        for index in (0, 1):
            backup.step(Received(leave(index, view)))
        passed = 0
        while backup.view == view:
            backup.step(Ticked())
            passed += 1
        waited.append(passed)
    assert waited == [PATIENCE, 2 * PATIENCE]


def test_without_a_quorum_of_view_changes_the_next_view_is_not_tried() -> None:
    """4.5.2: so that replicas do not run ahead of each other."""
    backup = replica(2)
    backup.step(Awaited("operation"))
    ticks(backup, 50 * PATIENCE)
    assert (backup.view, backup.active) == (1, False)


@pytest.mark.parametrize("sequence", [(0, 3), (3, 0)])
def test_those_who_have_gone_further_count_towards_the_quorum_that_starts_the_timer(sequence: tuple[int, int]) -> None:
    """Else who left for view 1 waits for ever for the lost view change of who is in view 2 by now."""
    backup = replica(2)
    backup.step(Awaited("operation"))
    ticks(backup, PATIENCE)
    for index in sequence:
        backup.step(Received(leave(index, 2 if index == 0 else 1)))
    assert [one.view for one in sent(ticks(backup, 2 * PATIENCE), ViewChange)] == [2]


def test_the_primary_of_the_new_view_is_timed_afresh() -> None:
    """4.4"""
    backup = replica(2)
    backup.step(Awaited("operation"))
    ticks(backup, PATIENCE - 1)
    backup.step(Received(begin([leave(0), leave(1), leave(3)])))
    assert not of_kind(ticks(backup, PATIENCE - 1), Suspect)
    assert of_kind(ticks(backup, 1), Suspect)


def test_who_lags_behind_a_view_is_shown_how_it_began() -> None:
    """Castro 2001, 5.2"""
    backup, message = replica(2), begin(QUORUM, [(1, A)])
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


def test_what_was_committed_is_delivered_even_while_the_view_is_changing() -> None:
    """4.2: a quorum has committed; no view can undo it."""
    backup, name = replica(1), batch_digest(A)
    for index in (0, 2, 3):
        backup.step(said(index, Commit(0, 1, name)))
    backup.step(Received(leave(2)))
    backup.step(Received(leave(3)))
    assert backup.step(Held(name, A))[-1] == Deliver(1, name, A)


def test_headers_of_a_quorum_make_a_height_permanent_and_forget_the_slots() -> None:
    """4.3, in test_checkpoints too; here: the next view change shows the certificate and no old proof."""
    backup = replica(1)
    [header] = headers(A)
    assert isinstance(header, Header)
    backup.followed(certificate(header))
    backup.step(Received(leave(2)))
    [own] = sent(backup.step(Received(leave(3))), ViewChange)
    assert own == ViewChange(1, 1, (certificate(header),), ())


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
