"""Claims of section 4.2: pre-prepare, prepare, commit, and what is ours: judging, and the primary's signature."""

from __future__ import annotations

import pytest

from potd.consensus.events import (
    Accuse,
    Awaited,
    Broadcast,
    Deliver,
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
    Suspect,
    Ticked,
)
from potd.wire.blocks import batch_digest
from potd.wire.consensus import Commit, Prepare, PrePrepare, Refusal, ViewChange
from potd.wire.envelope import Signed
from tests.consensus.cluster import ELSEWHERE, Cluster, batch_of, group, next_header, signer
from tests.consensus.liars import sign_with_nonce
from tests.consensus.parts import (
    PATIENCE,
    WINDOW,
    A,
    B,
    agreement,
    commitment,
    of_kind,
    order,
    persisted,
    propose,
    refusal,
    replica,
    said,
    sent,
)


@pytest.mark.parametrize("size", range(1, 41))
def test_two_quorums_share_an_honest_member_and_the_honest_can_form_one(size: int) -> None:
    """4.1, for every n rather than for 3f + 1 only."""
    members = group(size)
    assert 2 * members.quorum - size >= members.faults + 1
    assert members.quorum <= size - members.faults
    assert 3 * members.faults + 1 <= size


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


def test_a_batch_that_nobody_named_is_not_kept() -> None:
    """What a peer sends is bounded by what the watermarks let the primary name."""
    backup = replica(1)
    backup.step(Held(batch_digest(A), A))
    assert backup.batch(batch_digest(A)) is None


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


def test_a_stranger_is_ignored() -> None:
    assert replica(1).step(said(9, Commit(0, 1, batch_digest(A)))) == [Reject(signer(9).key, "not a validator")]


def test_a_second_batch_for_one_slot_is_proof_of_guilt() -> None:
    """4.2; ours: the two signatures are kept as evidence, and the primary is given up."""
    backup, first, other = replica(1), order(A), order(B)
    backup.step(Received(first))
    effects = backup.step(Received(other))
    assert effects[0] == Accuse(signer(0).key, "two batches for one slot", (first.signed, other.signed))
    assert [one.view for one in sent(effects, ViewChange)] == [1]


def test_halves_of_an_equivocation_meet_in_the_backups_prepares() -> None:
    """Ours: every prepare carries the primary's signature."""
    backup = replica(1)
    backup.step(Received(order(A)))
    accusations = of_kind(backup.step(Received(agreement(2, B))), Accuse)
    assert [one.evidence for one in accusations] == [(order(A).signed, order(B).signed)]


def test_an_order_is_learnt_from_a_backups_prepare() -> None:
    backup, name = replica(1), batch_digest(A)
    assert backup.step(Received(agreement(2, A))) == [FetchBatch(name)]
    assert backup.step(Held(name, A)) == [Judge(0, 1, name, A)]


def test_a_prepare_without_the_primarys_signature_counts_for_nothing() -> None:
    backup = replica(1)
    forged = Prepare(0, 1, batch_digest(A), signer(2).sign(PrePrepare(0, 1, batch_digest(A))).signature)
    assert of_kind(backup.step(said(2, forged)), Reject)
    assert not of_kind(propose(backup, A), Accuse)


def test_a_primarys_signature_from_another_network_counts_for_nothing() -> None:
    foreign = signer(0, ELSEWHERE).sign(PrePrepare(0, 1, batch_digest(A))).signature
    assert of_kind(replica(1).step(said(2, Prepare(0, 1, batch_digest(A), foreign))), Reject)


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


def test_of_six_three_do_not_suffice() -> None:
    """4.1: 2f + 1 = 3 of 6 is no quorum."""
    backup = replica(1, 6)
    propose(backup, A, size=6)
    assert not sent(backup.step(Received(agreement(2, A, size=6))), Commit)
    assert sent(backup.step(Received(agreement(3, A, size=6))), Commit)


def test_agreements_to_two_signatures_of_one_order_make_no_proof() -> None:
    """A lying primary can sign one order in many ways; a proof of mixed agreements would be refused by everybody."""
    backup, body = replica(1, 7), PrePrepare(0, 1, batch_digest(A))
    propose(backup, A, size=7)
    for index in (2, 3, 4, 5):
        odd = sign_with_nonce(0, body, index).signature
        effects = backup.step(said(index, Prepare(0, 1, batch_digest(A), odd)))
        assert not sent(effects, Commit)
        assert [one.reason for one in of_kind(effects, Suspect)] in (
            ["the primary signed one order in two ways"],
            [],
        )
    assert not backup.active


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


def test_a_replica_prepares_only_on_its_own_judgement_but_may_commit_on_a_quorums() -> None:
    """Ours: a quorum of agreements holds f + 1 honest judgements."""
    backup, name = replica(1), batch_digest(A)
    backup.step(Received(order(A)))
    backup.step(Held(name, A))
    backup.step(Received(agreement(2, A)))
    effects = backup.step(Received(agreement(3, A)))
    assert sent(effects, Commit) == [Commit(0, 1, name)]
    assert not sent(effects, Prepare)
    assert sent(backup.step(Judged(0, 1, name, "")), Prepare)


def test_a_refusal_is_signed_and_the_primary_given_up() -> None:
    """Ours: the view change is written before the refusal, so that no restart can agree to what was refused."""
    backup, name = replica(1), batch_digest(A)
    backup.step(Received(order(A)))
    backup.step(Held(name, A))
    effects = backup.step(Judged(0, 1, name, "another sum"))
    assert sent(effects, Refusal) == [refusal(1, A).body]
    assert not sent(effects, Prepare)
    written = [one.payload for one in persisted(effects) if isinstance(one, Signed)]
    assert written == [signer(1).sign(ViewChange(1, 0, (), ())).payload, refusal(1, A).signed.payload]


def test_a_reason_of_any_length_and_script_fits_a_refusal() -> None:
    backup, name = replica(1), batch_digest(A)
    backup.step(Received(order(A)))
    backup.step(Held(name, A))
    [word] = sent(backup.step(Judged(0, 1, name, "θ" * 300)), Refusal)
    assert word.reason == "θ" * 128


def test_a_judgement_that_comes_after_the_agreement_of_a_quorum_refuses_nothing() -> None:
    backup, name = replica(1), batch_digest(A)
    backup.step(Received(order(A)))
    backup.step(Held(name, A))
    for index in (2, 3):
        backup.step(Received(agreement(index, A)))
    assert backup.step(Judged(0, 1, name, "too late")) == []
    assert backup.active


def test_a_judgement_of_a_past_view_or_of_another_batch_moves_nothing() -> None:
    backup = replica(1)
    backup.step(Received(order(A)))
    backup.step(Held(batch_digest(A), A))
    assert backup.step(Judged(0, 1, batch_digest(B), "")) == []
    assert backup.step(Judged(1, 1, batch_digest(A), "")) == []
    backup.step(Received(order(B)))
    assert not backup.active
    assert backup.step(Judged(0, 1, batch_digest(A), "")) == []


def test_judging_holds_no_timer_and_an_agreed_slot_does() -> None:
    """4.5.2; ours: heavy work never holds a view's timer."""
    backup, name = replica(1), batch_digest(A)
    backup.step(Received(order(A)))
    backup.step(Held(name, A))
    for _ in range(10 * PATIENCE):
        assert not of_kind(backup.step(Ticked()), Suspect)
    backup.step(Judged(0, 1, name, ""))
    suspicions = [one for _ in range(PATIENCE) for one in of_kind(backup.step(Ticked()), Suspect)]
    assert [one.reason for one in suspicions] == [f"{PATIENCE} ticks without slot 1"]


def test_slow_judges_cost_no_view_while_what_is_due_may_take_as_long() -> None:
    cluster = Cluster(4, 3, judging=(5, 40), patience=120)
    for number in range(10):
        cluster.request(b"operation %d" % number)
        cluster.run(5)
    cluster.settle()
    assert [one.replica.view for one in cluster.members] == [0] * 4


def test_what_is_due_is_timed_from_when_it_became_due() -> None:
    """4.4: a mute primary is given up though it broke no rule."""
    backup = replica(1)
    backup.step(Awaited("operation"))
    for _ in range(PATIENCE - 1):
        assert not of_kind(backup.step(Ticked()), Suspect)
    assert of_kind(backup.step(Ticked()), Suspect)
