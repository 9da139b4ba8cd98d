"""The paper's claims of section 4.2, normal-case operation, one test for each; the sentence is in the docstring."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest

from potd.consensus.events import (
    Accuse,
    Broadcast,
    Deliver,
    Effect,
    Executed,
    FetchBatch,
    Held,
    Ignore,
    Judge,
    Judged,
    Persist,
    Proposed,
    Received,
    Reject,
)
from potd.gossip.admit import Ordered, admit_frame
from potd.wire.blocks import Batch, batch_digest
from potd.wire.codec import Malformed, encode
from potd.wire.consensus import Commit, Prepare, PrePrepare, Proposal, ViewChange
from potd.wire.envelope import Verified
from tests.consensus import liars
from tests.consensus.cluster import (
    NETWORK,
    Cluster,
    batch_of,
    next_header,
    signer,
)
from tests.consensus.parts import (
    WINDOW,
    A,
    B,
    agreement,
    commitment,
    of_kind,
    order,
    persisted,
    propose,
    replica,
    said,
    sent,
)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 7, 10])
def test_without_faults_everything_is_executed_everywhere_in_the_first_view(size: int) -> None:
    """4.2"""
    cluster = Cluster(size)
    for number in range(20):
        cluster.request(b"operation %d" % number)
    cluster.settle(100)
    cluster.run(40)
    assert [one.replica.stable for one in cluster.members] == [20] * size
    assert [sorted(one.certificates) for one in cluster.members] == [list(range(1, 21))] * size
    assert [one.replica.view for one in cluster.members] == [0] * size


def test_a_primary_writes_its_order_and_its_batch_before_it_sends_them() -> None:
    """4.2, and votes are durable before they are sent."""
    effects = replica(0).step(Proposed(batch_digest(A), A))
    signed = order(A).signed
    assert effects == [Persist(1, A), Persist(1, signed), Broadcast(signed, A)]


def test_a_primary_gives_out_no_sequence_number_above_the_high_watermark() -> None:
    """4.2"""
    primary = replica(0)
    for number in range(WINDOW):
        batch = batch_of(b"%d" % number)
        primary.step(Proposed(batch_digest(batch), batch))
    assert not primary.may_propose()
    assert primary.in_flight() == WINDOW


def test_a_backup_asks_for_the_batch_then_for_a_judgement_and_then_prepares() -> None:
    """4.2"""
    backup, name = replica(1), batch_digest(A)
    assert backup.step(Received(order(A))) == [FetchBatch(name)]
    assert backup.step(Held(name, A)) == [Judge(0, 1, name, A)]
    vote = agreement(1, A).signed
    assert backup.step(Judged(0, 1, name, "")) == [Persist(1, A), Persist(1, vote), Broadcast(vote)]


@pytest.mark.parametrize("seq", [0, WINDOW + 1, 2**62])
def test_an_order_outside_the_watermarks_is_ignored(seq: int) -> None:
    """4.2"""
    assert of_kind(replica(1).step(Received(order(A, seq))), Ignore)


def test_an_order_of_another_view_is_ignored() -> None:
    """4.2"""
    assert of_kind(replica(2).step(Received(order(A, view=1))), Ignore)


def test_an_order_by_a_backup_is_ignored() -> None:
    """4.2"""
    assert of_kind(replica(1).step(said(2, PrePrepare(0, 1, batch_digest(A)))), Reject)


def test_a_second_batch_for_one_slot_is_proof_of_guilt() -> None:
    """4.2; ours: the two signatures are kept as evidence, and the primary is given up."""
    backup, first, other = replica(1), order(A), order(B)
    backup.step(Received(first))
    effects = backup.step(Received(other))
    assert effects[0] == Accuse(signer(0).key, "two batches for one slot", (first.signed, other.signed))
    assert [one.view for one in sent(effects, ViewChange)] == [1]


def test_the_primary_has_no_second_voice_as_a_backup() -> None:
    """4.2: its order is its agreement."""
    backup = replica(1)
    propose(backup, A)
    assert of_kind(backup.step(Received(agreement(0, A))), Reject)


def test_a_replica_commits_on_the_agreement_of_a_quorum_and_keeps_the_proof() -> None:
    """4.2"""
    backup = replica(1)
    assert not sent(propose(backup, A), Commit)
    effects = backup.step(Received(agreement(2, A)))
    assert sent(effects, Commit) == [Commit(0, 1, batch_digest(A))]
    assert [type(one).__name__ for one in persisted(effects)] == ["Prepared", "Signed"]


def test_a_batch_is_delivered_when_a_quorum_has_committed() -> None:
    """4.2"""
    backup, name = replica(1), batch_digest(A)
    propose(backup, A)
    backup.step(Received(agreement(2, A)))
    assert not of_kind(backup.step(Received(commitment(2, A))), Deliver)
    assert backup.step(Received(commitment(3, A))) == [Deliver(1, name, A)]


def test_one_replica_has_one_commitment_however_often_it_speaks() -> None:
    """4.2"""
    backup = replica(1)
    propose(backup, A)
    backup.step(Received(agreement(2, A)))
    for batch in (A, B, A, A):
        assert not of_kind(backup.step(Received(commitment(2, batch))), Deliver)


def test_batches_are_executed_in_order_one_at_a_time() -> None:
    """4.2"""
    backup = replica(1)
    for seq, batch in ((2, B), (1, A)):
        propose(backup, batch, seq)
        backup.step(Received(agreement(2, batch, seq)))
        backup.step(Received(commitment(2, batch, seq)))
    assert backup.step(Received(commitment(3, B, 2))) == []
    assert backup.step(Received(commitment(3, A, 1))) == [Deliver(1, batch_digest(A), A)]
    first = next_header(None, A)
    assert backup.step(Executed(first))[-1] == Deliver(2, batch_digest(B), B)


def test_an_order_with_another_batch_than_it_names_is_no_message() -> None:
    """4.2: d is the digest for m."""
    good = Proposal(order(A).signed, A)
    assert isinstance(admit_frame(encode(good), NETWORK), Ordered)
    with pytest.raises(Malformed, match="another batch than its order names"):
        admit_frame(encode(replace(good, batch=B)), NETWORK)


@pytest.mark.parametrize("message", [order(A), agreement(2, A), commitment(2, A)], ids=["order", "prepare", "commit"])
def test_what_its_sender_has_not_signed_is_no_message(message: Verified[object]) -> None:
    """4.2: the signatures are correct."""
    assert admit_frame(encode(message.signed), NETWORK) == message
    with pytest.raises(Malformed, match="wrong signature"):
        admit_frame(encode(replace(message.signed, key=signer(3).key)), NETWORK)


def test_an_order_that_comes_again_changes_nothing() -> None:
    """4.2: it has not accepted a pre-prepare for view v and sequence number n containing a different digest."""
    backup = replica(1)
    propose(backup, A)
    assert backup.step(Received(order(A))) == []


@pytest.mark.parametrize(
    "message",
    [
        vote(2, A, seq, view)
        for vote in (agreement, commitment)
        for seq, view in ((0, 0), (WINDOW + 1, 0), (2**62, 0), (1, 1))
    ],
)
def test_agreements_and_commitments_of_another_view_or_outside_the_watermarks_are_ignored(
    message: Verified[object],
) -> None:
    """4.2: their view number equals the replica's current view, and their sequence number is between h and H."""
    backup = replica(1)
    propose(backup, A)
    assert [type(one) for one in backup.step(Received(message))] == [Ignore]  # type: ignore[arg-type]  # of a word


def test_the_primary_takes_agreements_and_commits_as_well() -> None:
    """4.2: a replica (including the primary) accepts prepare messages."""
    primary = replica(0)
    primary.step(Proposed(batch_digest(A), A))
    assert not sent(primary.step(Received(agreement(1, A))), Commit)
    assert sent(primary.step(Received(agreement(2, A))), Commit) == [Commit(0, 1, batch_digest(A))]


@pytest.mark.parametrize("other", [agreement(2, B), agreement(2, A, seq=2), agreement(2, A, view=1), agreement(1, A)])
def test_agreements_that_do_not_match_the_order_make_nothing_prepared(other: Verified[Prepare]) -> None:
    """4.2: prepares from different backups that match the pre-prepare: the same view, sequence number and digest."""
    backup = replica(1)
    propose(backup, A)
    effects = backup.step(Received(other))
    assert Commit(0, 1, batch_digest(A)) not in sent(effects, Commit)


@pytest.mark.parametrize("size", [4, 5, 6, 7])
def test_no_two_correct_replicas_prepare_two_batches_in_one_view(size: int) -> None:
    """4.2: if prepared(m, v, n, i) is true then prepared(m', v, n, j) is false for any other digest."""
    cluster = Cluster(size, 1, liars={0: liars.equivocate})
    for number in range(4):
        cluster.request(b"operation %d" % number)
    cluster.settle()
    prepared: dict[tuple[int, int], set[bytes]] = {}
    for message in (cluster.verified(one.signed) for one in cluster.heard):
        if message is not None and isinstance(message.body, Commit) and message.sender != signer(0).key:
            prepared.setdefault((message.body.view, message.body.seq), set()).add(message.body.batch)
    assert prepared
    assert {len(digests) for digests in prepared.values()} == {1}
    assert cluster.accusations, "else it has not ordered two"


def test_messages_may_arrive_in_any_order() -> None:
    """4.2: we do not rely on ordered message delivery."""
    name = batch_digest(A)
    messages = [order(A), agreement(2, A), commitment(0, A), commitment(2, A)]
    for sequence in permutations([*messages]):
        backup = replica(1)
        effects: list[Effect] = []
        for message in sequence:
            effects += backup.step(Received(message))  # type: ignore[arg-type]  # of a word
            if FetchBatch(name) in effects:
                effects += backup.step(Held(name, A))
                effects += backup.step(Judged(0, 1, name, ""))
        assert of_kind(effects, Deliver) == [Deliver(1, name, A)]
        assert sent(effects, Commit) == [Commit(0, 1, name)]


def test_a_quorum_of_commitments_chooses_without_ones_own_proof() -> None:
    """4.2: committed-local is prepared and 2f + 1 commits. Here the commits suffice: f + 1 honest ones have proofs."""
    backup, name = replica(1), batch_digest(A)
    propose(backup, A)
    for index in (0, 2):
        assert not of_kind(backup.step(said(index, Commit(0, 1, name))), Deliver)
    effects = backup.step(said(3, Commit(0, 1, name)))
    assert of_kind(effects, Deliver) == [Deliver(1, name, A)]
    assert not sent(effects, Commit), "its own commitment says that it has a proof"


@pytest.mark.parametrize("batches", [(A, A, B), (A, B, B)])
def test_commitments_to_different_batches_do_not_add_up(batches: tuple[Batch, ...]) -> None:
    """4.2: commits that match the pre-prepare."""
    backup = replica(1)
    propose(backup, A)
    for index, batch in zip((0, 2, 3), batches, strict=True):
        assert not of_kind(backup.step(Received(commitment(index, batch))), Deliver)
