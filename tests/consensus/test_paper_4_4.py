"""The paper's claims of section 4.4, view changes: when a view is left, what must be shown, what is carried over."""

from __future__ import annotations

from dataclasses import replace

import pytest

from potd.consensus.events import (
    Awaited,
    Broadcast,
    Deliver,
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
    Settled,
    Suspect,
    Ticked,
)
from potd.consensus.quorum import least
from potd.consensus.replica import Replica
from potd.consensus.view_change import NULL_DIGEST, carry_over
from potd.wire.blocks import NULL, Batch, Header, batch_digest
from potd.wire.codec import decode, encode
from potd.wire.consensus import WORDS, Commit, NewView, Prepare, PrePrepare, ViewChange, can_change_views
from potd.wire.envelope import Signed, Verified, verify
from tests.consensus.cluster import (
    ELSEWHERE,
    NETWORK,
    VIEW_SEQ,
    batch_of,
    group,
    headers,
    signer,
)
from tests.consensus.parts import (
    FIRST,
    PATIENCE,
    WINDOW,
    A,
    B,
    C,
    agreement,
    begin,
    certificate,
    commitment,
    leave,
    new_primary,
    of_kind,
    order,
    proof,
    propose,
    replica,
    said,
    sent,
    ticks,
)


def test_what_is_due_is_timed_from_when_it_became_due() -> None:
    """4.4: a mute primary is given up though it broke no rule."""
    backup = replica(1)
    backup.step(Awaited("operation"))
    for _ in range(PATIENCE - 1):
        assert not of_kind(backup.step(Ticked()), Suspect)
    assert of_kind(backup.step(Ticked()), Suspect)


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
        leave(2, 1, [], certificate(headers(A)[0], by=(0, 1, 2, 3))),  # more than prove it, as the next
        leave(2, 1, [proof(A, by=(1, 2, 3))]),
        leave(9, 1),
    ],
)
def test_a_view_change_that_proves_what_it_claims_wrongly_counts_for_nothing(wrong: Verified[ViewChange]) -> None:
    """4.4"""
    effects = new_primary(wrong, leave(3))
    assert of_kind(effects, Reject)
    assert not sent(effects, NewView)


def test_no_view_change_has_more_signatures_than_a_new_view_has_room_for() -> None:
    """Of a checkpoint that all have signed a quorum's are shown: of 130 in a window of 4, all would be too many."""
    one = replica(1)
    one.restore(FIRST, certificate(FIRST, by=(0, 1, 2, 3)), (), None)
    one.step(Awaited("operation"))
    (left,) = sent(ticks(one, PATIENCE), ViewChange)
    assert [len(shown.attestations) for shown in left.certificate] == [one.group.quorum]


def test_the_largest_new_view_fits_a_message_whatever_f_liars_have_put_into_it() -> None:
    """Else who has to begin it can neither write it down nor send it. All slots are prepared, by all."""
    size, window = 69, 16
    members = group(size)
    assert can_change_views(size, window)
    head = headers(*[A] * 100)[-1]
    sealed = certificate(head, by=tuple(range(size)))
    lean, fat = ((1, members.quorum), (1, size))
    proofs = {
        until: [proof(A, head.height + seq, size=size, by=tuple(range(*until))) for seq in range(1, window + 1)]
        for until in (lean, fat)
    }
    primary = Replica(signer(1), members, patience_ticks=PATIENCE, window=window)
    primary.restore(head, sealed, proofs[lean], None)
    words: list[Signed] = []
    for index in range(2, size):
        until = fat if index < 2 + members.faults else lean
        shown = sealed if until == fat else least(sealed, members)
        effects = primary.step(Received(leave(index, 1, proofs[until], shown)))
        words += [one.signed for one in of_kind(effects, Broadcast)]
    assert (primary.view, primary.active) == (1, True)
    (begun,) = [one for one in words if isinstance(decode(one.payload, *WORDS), NewView)]
    assert decode(encode(begun), Signed) == begun


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
        begin([*QUORUM, leave(2)], [(1, A)]),  # more than begin it
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


def test_the_primary_of_the_new_view_is_timed_afresh() -> None:
    """4.4"""
    backup = replica(2)
    backup.step(Awaited("operation"))
    ticks(backup, PATIENCE - 1)
    backup.step(Received(begin([leave(0), leave(1), leave(3)])))
    assert not of_kind(ticks(backup, PATIENCE - 1), Suspect)
    assert of_kind(ticks(backup, 1), Suspect)


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


def test_the_timer_runs_only_while_something_is_awaited_and_afresh_for_the_next() -> None:
    """4.4: it stops the timer when it is no longer waiting, but restarts it if it is waiting for another request."""
    backup = replica(1)
    backup.step(Awaited("one"))
    ticks(backup, PATIENCE - 1)
    backup.step(Awaited("two"))
    backup.step(Settled("one"))
    assert not of_kind(ticks(backup, PATIENCE - 1), Suspect)
    backup.step(Settled("two"))
    assert not of_kind(ticks(backup, 5 * PATIENCE), Suspect)


def test_p_shows_of_each_slot_the_proof_of_the_highest_view_and_nothing_that_was_not_prepared() -> None:
    """4.4: P contains a set for each request that prepared with a sequence number higher than n."""
    backup = replica(3)
    propose(backup, A)
    backup.step(Received(agreement(2, A)))
    propose(backup, B, 2)
    backup.step(Received(begin([leave(0), leave(1), leave(2, 1, [proof(A, by=(2, 3))])], [(1, A)])))
    backup.step(Received(agreement(2, A, view=1)))
    effects = [effect for index in (0, 1) for effect in backup.step(Received(leave(index, 2)))]
    assert set(sent(effects, ViewChange)) == {ViewChange(2, 0, (), (proof(A, view=1, by=(2, 3)),))}


def test_if_nothing_was_prepared_there_is_nothing_to_carry_over() -> None:
    """4.4: O is empty if min-s equals max-s."""
    (message,) = set(sent(new_primary(leave(2), leave(3)), NewView))
    assert message.pre_prepares == ()
    stable = certificate(FIRST)
    assert carry_over([leave(0, 1, [], stable).body, leave(1).body, leave(2).body]).orders == ()


def test_max_s_is_the_highest_number_in_any_proof() -> None:
    """4.4: max-s is the highest sequence number in a prepare message in V."""
    changes = [leave(0, 1, [proof(A, 2), proof(C, 5)]).body, leave(1, 1, [proof(B, 3)]).body, leave(2).body]
    assert [seq for seq, _ in carry_over(changes).orders] == [1, 2, 3, 4, 5]


def test_the_orders_of_a_new_view_are_the_new_primarys_own_and_in_its_log() -> None:
    """4.4: the primary appends the messages in O to its log; no number of O is given out again."""
    one = replica(1)
    for message in (leave(2, 1, [proof(A, 2)]), leave(3)):
        one.step(Received(message))
    assert [slot.seq for slot in one._log.slots() if slot.ballots[1].order is not None] == [1, 2]
    assert one.next_seq() == 3


def test_a_new_primary_behind_min_s_proves_it_and_follows() -> None:
    """4.4: it inserts the proof of stability for the checkpoint with number min-s, and discards what lies below."""
    one, stable = replica(1), certificate(FIRST)
    one.step(Received(leave(2, 1, [proof(B, 2)], stable)))
    effects = one.step(Received(leave(3)))
    assert Follow(1) in effects
    (message,) = set(sent(effects, NewView))
    assert [verify(one, NETWORK, PrePrepare).body.seq for one in message.pre_prepares] == [2]
    one.followed(stable)
    assert [slot.seq for slot in one._log.slots()] == [2]


def test_the_null_request_goes_through_the_protocol_like_any_other_and_does_nothing() -> None:
    """4.4: d_null is the digest of a special null request; its execution is a no-op."""
    backup = replica(2)
    message = begin([leave(0), leave(1), leave(3, 1, [proof(B, 2)])], [(1, NULL), (2, B)])
    effects = backup.step(Received(message))
    assert [one.seq for one in sent(effects, Prepare)] == [1], "and for the other its batch is fetched"
    backup.step(Received(agreement(3, NULL, view=1)))
    backup.step(Received(commitment(1, NULL, view=1)))
    effects = backup.step(Received(commitment(3, NULL, view=1)))
    assert of_kind(effects, Deliver) == [Deliver(1, NULL_DIGEST, NULL)]
    assert Batch(()) == NULL


def test_what_was_executed_is_agreed_on_again_and_not_executed_again() -> None:
    """4.4: replicas redo the protocol for messages between min-s and max-s but they avoid re-executing."""
    backup = replica(2)
    propose(backup, A)
    for index in (1, 3):
        backup.step(Received(agreement(index, A)))
        backup.step(Received(commitment(index, A)))
    backup.step(Executed(FIRST))
    effects = backup.step(Received(begin([leave(0), leave(1), leave(3, 1, [proof(A)])], [(1, A)])))
    assert [one.view for one in sent(effects, Prepare)] == [1]
    effects = backup.step(Received(agreement(3, A, view=1)))
    assert [one.view for one in sent(effects, Commit)] == [1]
    for index in (1, 3):
        effects += backup.step(Received(commitment(index, A, view=1)))
    assert not of_kind(effects, Deliver)
    assert backup.executed == 1


def test_who_changes_views_takes_no_order_no_agreement_and_no_commitment() -> None:
    """4.4: it stops accepting messages (other than checkpoint, view-change, and new-view messages)."""
    backup = replica(2)
    backup.step(Awaited("operation"))
    ticks(backup, PATIENCE)
    for message in (order(A), agreement(3, A), commitment(3, A), order(A, view=1), agreement(3, A, view=1)):
        assert [type(one) for one in backup.step(Received(message))] == [Ignore]
    backup.step(Received(begin([leave(0), leave(1), leave(3)])))
    assert (backup.view, backup.active) == (1, True)
