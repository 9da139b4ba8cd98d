"""Claims of section 4.3: every height's header is a checkpoint; a quorum's signatures make it permanent."""

from __future__ import annotations

from dataclasses import replace

import pytest

from potd.consensus.events import (
    Broadcast,
    Certificated,
    Certify,
    Deliver,
    Executed,
    Follow,
    Forget,
    Ignore,
    Judge,
    Persist,
    Received,
    Send,
)
from potd.consensus.replica import Replica
from potd.wire.blocks import batch_digest
from potd.wire.consensus import Status
from tests.consensus.cluster import Cluster, batch_of, headers, signer
from tests.consensus.parts import (
    WINDOW,
    A,
    B,
    agreement,
    certificate,
    commitment,
    of_kind,
    order,
    propose,
    replica,
    said,
)

FIRST, SECOND = headers(A, B)


def executed(*batches: bytes) -> Replica:
    """A backup (n1 of four) that has executed these batches."""
    backup = replica(1)
    made = [batch_of(one) for one in batches]
    for seq, (batch, header) in enumerate(zip(made, headers(*made), strict=True), start=1):
        propose(backup, batch, seq)
        backup.step(Received(agreement(2, batch, seq)))
        backup.step(Received(commitment(2, batch, seq)))
        assert of_kind(backup.step(Received(commitment(3, batch, seq))), Deliver)
        backup.step(Executed(header))
    return backup


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
    backup = executed(b"a")
    backup.step(said(0, replace(FIRST, state=SECOND.state)))
    backup.step(said(0, FIRST))
    assert not backup.step(said(0, FIRST))
    assert backup.step(said(2, FIRST)) == []


@pytest.mark.parametrize("height", [0, WINDOW + 1, 2**40])
def test_a_header_outside_the_watermarks_is_ignored(height: int) -> None:
    assert of_kind(replica(1).step(said(0, replace(FIRST, height=height))), Ignore)


def test_a_height_that_a_later_one_overtook_is_certified_all_the_same() -> None:
    """Whoever follows needs the certificate of every height, though headers may come in any order."""
    backup = executed(b"a", b"b")
    backup.step(said(0, SECOND))
    assert backup.step(said(2, SECOND)) == [Certify(certificate(SECOND)), Forget(2)]
    assert not backup.step(said(0, FIRST))
    assert backup.step(said(2, FIRST)) == [Certify(certificate(FIRST))]
    assert of_kind(backup.step(said(3, FIRST)), Ignore)
    assert backup.stable == 2


def test_a_replica_that_lacks_a_certified_height_follows_the_network() -> None:
    """4.3, 4.6: state transfer"""
    behind = replica(3)
    for index in (0, 1):
        assert not behind.step(said(index, SECOND))
    assert behind.step(said(2, SECOND)) == [Follow(2)]
    assert behind.step(Certificated(certificate(SECOND))) == [Follow(2)]
    assert Forget(2) in behind.followed(certificate(SECOND))
    assert (behind.executed, behind.stable) == (2, 2)


def test_a_replica_about_to_execute_a_certified_height_does_not_follow() -> None:
    backup = replica(3)
    propose(backup, A)
    for index in (0, 1, 2):
        assert not of_kind(backup.step(said(index, FIRST)), Follow)


def test_who_is_behind_the_checkpoint_is_sent_its_certificate() -> None:
    """Castro 2001, 5.2"""
    backup = executed(b"a")
    backup.step(said(0, FIRST))
    backup.step(said(2, FIRST))
    assert backup.step(said(3, Status(0, False, 0, 0))) == [Send(signer(3).key, certificate(FIRST))]


def test_a_batch_already_executed_is_not_judged_again() -> None:
    """Its premise is gone; it is agreed to because a quorum has committed it."""
    backup = replica(1)
    for index in (2, 3):
        backup.step(Received(agreement(index, A)))
        backup.step(Received(commitment(index, A)))
    assert not of_kind(backup.step(Received(commitment(0, A))), Judge)


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
