"""Crashes: the power goes at every boundary of every write, and no key ever signs two votes for one phase."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from potd.consensus.events import Awaited, Certify, Deliver, Effect, Persist, Proposed, Received, Ticked
from potd.consensus.replica import Replica
from potd.wire.blocks import NULL, batch_digest
from potd.wire.consensus import Prepare
from tests.consensus.cluster import VIEW_SEQ, Cluster, Lie, headers, signer
from tests.consensus.liars import equivocate, mute_as_primary
from tests.consensus.parts import (
    BOOT,
    PATIENCE,
    WINDOW,
    A,
    B,
    agreement,
    begin,
    certificate,
    leave,
    of_kind,
    order,
    proof,
    propose,
    replica,
    said,
    sent,
    told_nothing,
)

OPERATIONS = 4


def run(size: int, liars: Mapping[int, Lie], crash: dict[int, int]) -> Cluster:
    """A short run in which members' power goes at the given boundary, and comes back a little later."""
    cluster = Cluster(size, 7, liars=liars, patience=30, window=4, delay=(1, 1))
    for index, boundary in crash.items():
        cluster.members[index].crash_at = boundary
    for number in range(OPERATIONS):
        cluster.request(b"operation %d" % number)
    for _ in range(30):
        cluster.run(5)
        for member in cluster.members:
            if not member.up:
                cluster.restart(member.index)
        if cluster.settled():
            break
    cluster.heal()
    cluster.request(b"after healing")
    cluster.settle()
    return cluster


RUNS: list[tuple[int, int, dict[int, Lie]]] = [
    (1, 0, {}),
    (2, 0, {}),
    (4, 0, {}),
    (4, 1, {}),
    (4, 1, {0: mute_as_primary}),  # n1 is the primary of the new view
    (4, 2, {0: mute_as_primary}),
    (4, 3, {0: equivocate}),
]


@pytest.mark.parametrize(("size", "who", "liars"), RUNS)
def test_the_power_may_go_at_every_boundary_of_a_write(size: int, who: int, liars: dict[int, Lie]) -> None:
    """Just before and just after everything that this member writes; the cluster checks every vote."""
    total = run(size, liars, {}).members[who].boundaries
    assert total > 20
    for boundary in range(1, total + 1):
        run(size, liars, {who: boundary})


@pytest.mark.parametrize("size", [1, 2, 4])
def test_the_power_may_go_everywhere_at_once(size: int) -> None:
    total = run(size, {}, {}).members[0].boundaries
    for boundary in range(1, total + 1, 3):
        run(size, {}, dict.fromkeys(range(size), boundary))


def started(one: Replica, effects: list[Effect], *, executed: int = 0) -> Replica:
    """The same member after a restart, from what these effects wrote; nobody has told it yet what it said last."""
    again = Replica(one.signer, one.group, patience_ticks=PATIENCE, window=WINDOW)
    records = [effect.record for effect in effects if isinstance(effect, Persist)]
    again.restore(headers(A, B)[executed - 1] if executed else None, None, records, BOOT)
    return again


def restored(one: Replica, effects: list[Effect], *, executed: int = 0) -> Replica:
    """The same member after a restart, and after a quorum has told it nothing new."""
    again = started(one, effects, executed=executed)
    told_nothing(again)
    return again


def test_a_restarted_backup_does_not_prepare_another_batch() -> None:
    backup = replica(1)
    again = restored(backup, propose(backup, A))
    again.step(Received(order(B)))
    assert not again.active  # it has both signatures of the primary
    assert not sent(propose(again, B), Prepare)


def test_a_restarted_primary_gives_out_no_sequence_number_twice() -> None:
    primary = replica(0)
    again = restored(primary, primary.step(Proposed(batch_digest(A), A)))
    assert [one.seq for one in again._log.slots()] == [1]
    again.step(Proposed(batch_digest(B), B))
    assert [one.seq for one in again._log.slots()] == [1, 2]


def test_a_restarted_member_alone_goes_on_by_itself() -> None:
    """n = 1: there is nobody whose message could wake it."""
    alone = replica(0, 1)
    effects = alone.step(Proposed(batch_digest(A), A))
    assert of_kind(restored(alone, effects).step(Ticked()), Deliver) == [Deliver(1, batch_digest(A), A)]


def test_a_restarted_member_alone_certifies_what_it_had_executed() -> None:
    """Else this height would never have a certificate, and nobody could follow past it."""
    assert of_kind(restored(replica(0, 1), [], executed=1).step(Ticked()), Certify) == [
        Certify(certificate(headers(A)[0], by=(0,)))
    ]


def test_a_header_executed_but_not_signed_before_the_crash_is_signed_after_it() -> None:
    """The block may be written and the vote not; the network may have certified the height meanwhile."""
    again = restored(replica(1), [], executed=1)
    for index in (0, 2):
        again.step(said(index, headers(A)[0]))
    assert (again.stable, again.certificate) == (1, certificate(headers(A)[0]))


def test_what_a_new_view_carried_is_prepared_after_a_restart() -> None:
    """The power goes after the new view was written, and before anything was said in it."""
    backup = replica(2)
    propose(backup, A)
    message = begin([leave(0), leave(1), leave(3, 1, [proof(A)])], [(1, A)])
    again = started(backup, [Persist(1, A), Persist(VIEW_SEQ, message.signed)])
    assert (again.view, again.active) == (1, True)
    assert [one.view for one in sent(told_nothing(again), Prepare)] == [1]


def test_what_an_earlier_view_began_is_not_due_from_the_primary_of_this_one() -> None:
    backup = replica(2)
    old = propose(backup, A)
    again = restored(backup, [*old, Persist(VIEW_SEQ, begin([leave(0), leave(1), leave(3)]).signed)])
    for _ in range(3 * PATIENCE):
        again.step(Ticked())
    assert again.active


def test_sequence_numbers_given_out_in_an_earlier_view_leave_no_gap_in_this_one() -> None:
    """n0 is primary of view 0 and of view 4."""
    first = replica(0)
    given = [effect for batch in (A, B) for effect in first.step(Proposed(batch_digest(batch), batch))]
    later = begin([leave(1, 4), leave(2, 4), leave(3, 4)], view=4)
    again = restored(first, [*given, Persist(VIEW_SEQ, later.signed)])
    again.step(Proposed(batch_digest(NULL), NULL))
    assert [one.seq for one in again._log.slots() if 4 in one.ballots] == [1]


def test_who_had_left_a_view_does_not_vote_in_it_after_a_restart() -> None:
    """4.4"""
    backup = replica(1)
    effects = backup.step(Awaited("operation"))
    for _ in range(PATIENCE):
        effects += backup.step(Ticked())
    again = restored(backup, effects)
    assert (again.view, again.active) == (1, False)
    assert not sent(propose(again, A), Prepare)
    assert again._view_changes[signer(1).key] == leave(1)


def test_a_proof_outlives_a_restart() -> None:
    """4.4: P"""
    backup = replica(1)
    effects = propose(backup, A) + backup.step(Received(agreement(2, A)))
    again = restored(backup, effects)
    again.step(Received(leave(2)))
    again.step(Received(leave(3)))
    assert again.batch(batch_digest(A)) == A
    ballot = again._log.slot(1).ballot(1)
    assert ballot.order is not None
    assert ballot.order.body.batch == batch_digest(A)  # n1 is the new primary, and carries it over
