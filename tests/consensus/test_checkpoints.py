"""Checkpoints beyond the paper: heights that others overtook, and who is sent what it lacks."""

from __future__ import annotations

from potd.consensus.events import (
    Certify,
    Follow,
    Forget,
    Ignore,
    Judge,
    Received,
    Send,
)
from potd.wire.consensus import Status
from tests.consensus.cluster import signer
from tests.consensus.parts import (
    FIRST,
    SECOND,
    A,
    agreement,
    certificate,
    commitment,
    executed,
    of_kind,
    propose,
    replica,
    said,
)


def test_a_height_that_a_later_one_overtook_is_certified_all_the_same() -> None:
    """Whoever follows needs the certificate of every height, though headers may come in any order."""
    backup = executed(b"a", b"b")
    backup.step(said(0, SECOND))
    assert backup.step(said(2, SECOND)) == [Certify(certificate(SECOND)), Forget(2)]
    assert not backup.step(said(0, FIRST))
    assert backup.step(said(2, FIRST)) == [Certify(certificate(FIRST))]
    assert of_kind(backup.step(said(3, FIRST)), Ignore)
    assert backup.stable == 2


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
