"""The paper's claims of section 4.3, garbage collection; every height is a checkpoint, and its header the message."""

from __future__ import annotations

from dataclasses import replace

import pytest

from potd.consensus.events import (
    Accuse,
    Broadcast,
    Certificated,
    Certify,
    Executed,
    Follow,
    Forget,
    Ignore,
    Persist,
    Received,
)
from potd.wire.blocks import batch_digest
from potd.wire.consensus import ViewChange
from tests.consensus.cluster import (
    Cluster,
    batch_of,
    signer,
)
from tests.consensus.parts import (
    FIRST,
    SECOND,
    WINDOW,
    A,
    B,
    agreement,
    certificate,
    commitment,
    executed,
    leave,
    of_kind,
    order,
    proof,
    propose,
    replica,
    said,
    sent,
)


def test_after_executing_a_replica_signs_the_header_and_writes_it_down_first() -> None:
    """4.3"""
    backup = replica(1)
    propose(backup, A)
    for index in (2, 3):
        backup.step(Received(agreement(index, A)))
        backup.step(Received(commitment(index, A)))
    vote = signer(1).sign(FIRST)
    assert backup.step(Executed(FIRST)) == [Persist(1, vote), Broadcast(vote)]


def test_a_quorum_of_headers_certifies_the_height_and_moves_the_watermarks() -> None:
    """4.3"""
    backup = executed(b"a")
    assert not backup.step(said(0, FIRST))
    assert backup.step(said(2, FIRST)) == [Certify(certificate(FIRST)), Forget(1)]
    assert (backup.stable, backup.certificate) == (1, certificate(FIRST))
    assert of_kind(backup.step(Received(order(A))), Ignore)
    assert not of_kind(backup.step(Received(order(A, WINDOW + 1))), Ignore)


def test_headers_that_differ_do_not_add_up() -> None:
    """4.3"""
    backup = executed(b"a")
    backup.step(said(0, replace(FIRST, state=SECOND.state)))
    assert not backup.step(said(2, FIRST))
    assert backup.stable == 0


def test_a_validators_first_word_on_a_height_stands() -> None:
    """The second one is proof of guilt, and counts for nothing. 4.3"""
    backup, other = executed(b"a"), signer(0).verified(replace(FIRST, state=SECOND.state))
    backup.step(Received(other))
    guilt = Accuse(signer(0).key, "signed two results of one height", (other.signed, signer(0).sign(FIRST)))
    assert backup.step(said(0, FIRST)) == [guilt]
    assert backup.step(said(2, FIRST)) == []


@pytest.mark.parametrize("height", [0, WINDOW + 1, 2**40])
def test_a_header_outside_the_watermarks_is_ignored(height: int) -> None:
    assert of_kind(replica(1).step(said(0, replace(FIRST, height=height))), Ignore)


def test_a_replica_that_lacks_a_certified_height_follows_the_network() -> None:
    """4.3, 4.6: state transfer"""
    behind = replica(3)
    for index in (0, 1):
        assert not behind.step(said(index, SECOND))
    assert behind.step(said(2, SECOND)) == [Follow(2)]
    assert behind.step(Certificated(certificate(SECOND))) == [Follow(2)]
    assert Forget(2) in behind.followed(certificate(SECOND))
    assert (behind.executed, behind.stable) == (2, 2)


def test_memory_is_bounded_by_the_watermarks() -> None:
    """4.3: truncation"""
    cluster = Cluster(4, window=4)
    for number in range(60):
        cluster.request(b"operation %d" % number)
    cluster.settle()
    cluster.run(60)
    for member in cluster.members:
        assert member.replica.stable == 60
        assert not member.replica._log.slots()
        assert len(member.replica._batches) == 1
        assert len(member.journal.records) == 0
        assert batch_digest(batch_of(b"operation 1")) not in member.replica._batches


def test_an_order_and_what_proves_it_is_kept_until_its_height_is_stable() -> None:
    """4.3: messages must be kept until the requests they concern have been executed by f + 1 and this can be proved."""
    backup = executed(b"a")
    backup.step(Received(leave(2)))
    (shown,) = sent(backup.step(Received(leave(3))), ViewChange)
    assert shown == ViewChange(1, 0, (), (proof(A),))


def test_what_a_stable_checkpoint_covers_is_discarded_with_earlier_checkpoints() -> None:
    """4.3: it discards all pre-prepare, prepare and commit messages up to n, and all earlier checkpoint messages."""
    backup = executed(b"a", b"b")
    backup.step(said(0, FIRST))
    backup.step(said(0, SECOND))
    assert [slot.seq for slot in backup._log.slots()] == [1, 2]
    assert Forget(2) in backup.step(said(2, SECOND))
    assert backup._log.slots() == []
    assert [backup.batch(batch_digest(one)) for one in (A, B)] == [None, None]
    assert not [one for one in backup._checkpoints.heights() if one >= 2]


def test_a_height_is_stable_only_once_it_is_executed_here() -> None:
    """4.3: a replica collects checkpoint messages, possibly including its own, and follows who is ahead of it [4.6]."""
    backup = replica(1)
    propose(backup, A)
    for index in (2, 3):
        backup.step(Received(agreement(index, A)))
        backup.step(Received(commitment(index, A)))
    for index in (0, 2, 3):
        assert backup.step(said(index, FIRST)) == []
    assert backup.stable == 0
    assert of_kind(backup.step(Executed(FIRST)), Certify) == [Certify(certificate(FIRST, by=(0, 1, 2, 3)))]
    assert backup.stable == 1


def test_checkpoints_count_from_whatever_view_and_while_it_is_changed() -> None:
    """4.3, and 4.4: who changes views accepts checkpoint messages. A header names no view."""
    backup = executed(b"a")
    for index in (2, 3):
        backup.step(Received(leave(index, 2)))
    assert not backup.active
    assert not of_kind(backup.step(said(0, FIRST)), Ignore)
    backup.step(said(2, FIRST))
    assert backup.stable == 1


def test_no_liar_moves_the_watermarks() -> None:
    """4.3: h and H move with a stable checkpoint only; else a faulty primary exhausts the space of numbers."""
    backup = replica(1)
    for seq in (WINDOW + 1, 2**40):
        backup.step(Received(order(A, seq)))
        backup.step(said(0, replace(FIRST, height=seq)))
        backup.step(Received(commitment(0, A, seq)))
    assert backup._log.slots() == []
    assert backup.stable == 0
