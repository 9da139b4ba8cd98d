"""Judgements against an order: each is one replica's word, a quorum of them is proof."""

from __future__ import annotations

from potd.consensus.events import Accuse, Broadcast, FetchBatch, Held, Ignore, Judge, Judged, Received, Reject, Send
from potd.consensus.replica import Replica
from potd.wire.blocks import batch_digest
from potd.wire.consensus import Prepare, Refusal, Status, ViewChange
from potd.wire.envelope import Verified
from tests.consensus.cluster import NETWORK, group, signer
from tests.consensus.parts import (
    BOOT,
    PATIENCE,
    WINDOW,
    A,
    B,
    agreement,
    leave,
    of_kind,
    order,
    refusal,
    replica,
    said,
    sent,
    told_nothing,
)

NAME = batch_digest(A)


def refusing(index: int = 1) -> Replica:
    backup = replica(index)
    backup.step(Received(order(A)))
    backup.step(Held(NAME, A))
    backup.step(Judged(0, 1, NAME, "another sum"))
    return backup


def test_a_quorum_of_refusals_convicts_the_primary() -> None:
    backup = refusing()
    assert not of_kind(backup.step(Received(refusal(2, A))), Accuse)
    [guilt] = of_kind(backup.step(Received(refusal(3, A))), Accuse)
    words = sorted((refusal(index, A).signed for index in (1, 2, 3)), key=lambda one: one.key)
    assert guilt == Accuse(signer(0).key, "a quorum refused its batch", (order(A).signed, *words))


def test_refusals_of_several_orders_or_of_one_replica_twice_convict_nobody() -> None:
    backup = refusing()
    for word in (refusal(2, B), refusal(2, A), refusal(2, A), refusal(3, B)):
        assert not of_kind(backup.step(Received(word)), Accuse)


def test_an_order_that_came_to_others_only_is_learned_from_their_refusal_and_judged() -> None:
    backup = replica(1)
    assert of_kind(backup.step(Received(refusal(2, A))), FetchBatch) == [FetchBatch(NAME)]
    assert of_kind(backup.step(Held(NAME, A)), Judge) == [Judge(0, 1, NAME, A)]


def test_a_refusal_shows_the_other_half_of_an_equivocation() -> None:
    backup = replica(1)
    backup.step(Received(order(B)))
    [guilt] = of_kind(backup.step(Received(refusal(2, A))), Accuse)
    assert guilt.evidence == (order(B).signed, order(A).signed)


def test_what_was_judged_wrong_is_said_also_after_others_have_made_us_leave() -> None:
    """Else f + 1 quick refusals would end the view before there is a quorum of them."""
    backup = replica(2)
    backup.step(Received(order(A)))
    backup.step(Held(NAME, A))
    for index in (1, 3):
        backup.step(Received(leave(index)))
    assert not backup.active
    effects = backup.step(Judged(0, 1, NAME, "another sum"))
    assert sent(effects, Refusal) == [refusal(2, A).body]
    assert not sent(effects, ViewChange), "it has left already"


def test_what_was_agreed_to_is_never_refused() -> None:
    """A vote in the phase of preparing is one or the other."""
    backup = replica(1)
    backup.step(Received(order(A)))
    backup.step(Held(NAME, A))
    backup.step(Judged(0, 1, NAME, ""))
    assert not sent(backup.step(Judged(0, 1, NAME, "another sum")), Refusal)


def test_what_was_refused_is_never_agreed_to() -> None:
    assert not sent(refusing().step(Judged(0, 1, NAME, "")), Prepare)


def test_a_refusal_that_shows_no_order_of_the_primary_is_false() -> None:
    backup = replica(1)
    forged = Refusal(0, 1, NAME, agreement(2, A).signed.signature, "no")
    assert backup.step(said(2, forged)) == [Reject(signer(2).key, "refusal without the primary's signature")]
    assert backup.step(Received(refusal(0, A))) == [Reject(signer(0).key, "refusal by the primary")]


def test_a_refusal_of_a_view_to_come_or_beyond_the_watermarks_is_untimely() -> None:
    backup = replica(1)
    for word in (refusal(2, A, view=3), refusal(2, A, seq=WINDOW + 1)):
        assert of_kind(backup.step(Received(word)), Ignore)


def test_a_refusal_is_said_again_to_whoever_may_lack_it() -> None:
    backup = refusing()
    effects = backup.step(said(2, Status(0, False, 0, 0)))
    assert Send(signer(2).key, refusal(1, A).signed) in effects


def test_a_refusal_is_remembered_over_a_restart() -> None:
    before = refusing()
    word: Verified[Refusal] = refusal(1, A)
    after = Replica(signer(1), group(4), patience_ticks=PATIENCE, window=WINDOW)
    after.restore(None, None, [leave(1).signed, word.signed], BOOT)
    told_nothing(after)
    effects = after.step(said(2, Status(0, False, 0, 0)))
    assert Send(signer(2).key, word.signed) in effects
    assert before.signer.network == NETWORK
    assert not any(isinstance(one, Broadcast) for one in after.step(Judged(0, 1, NAME, "")))


def test_what_was_refused_and_is_not_carried_over_is_not_in_flight_for_the_next_primary() -> None:
    """It would let operations wait for the end of what nobody will order again, and so for ever."""
    backup = refusing()
    for index in (2, 3):
        backup.step(Received(leave(index)))
    assert backup.is_primary and backup.view == 1
    assert backup.in_flight() == 0
