"""What is ours in the normal case: judging, the primary's signature in every agreement, and what a refusal does."""

from __future__ import annotations

from potd.consensus.events import (
    Accuse,
    FetchBatch,
    Held,
    Judge,
    Judged,
    Received,
    Reject,
    Suspect,
    Ticked,
)
from potd.wire.blocks import batch_digest
from potd.wire.consensus import Commit, Prepare, PrePrepare, Refusal, ViewChange
from potd.wire.envelope import Signed
from tests.consensus.cluster import ELSEWHERE, Cluster, signer
from tests.consensus.liars import sign_with_nonce
from tests.consensus.parts import (
    PATIENCE,
    A,
    B,
    agreement,
    of_kind,
    order,
    persisted,
    propose,
    refusal,
    replica,
    said,
    sent,
)


def test_a_batch_that_nobody_named_is_not_kept() -> None:
    """What a peer sends is bounded by what the watermarks let the primary name."""
    backup = replica(1)
    backup.step(Held(batch_digest(A), A))
    assert backup.batch(batch_digest(A)) is None


def test_a_stranger_is_ignored() -> None:
    assert replica(1).step(said(9, Commit(0, 1, batch_digest(A)))) == [Reject(signer(9).key, "not a validator")]


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


def test_a_judgement_of_a_batch_that_is_not_held_moves_nothing() -> None:
    """Nobody can have asked for it in this life. (Fuzzing, seed 1065)"""
    backup, name = replica(1), batch_digest(A)
    backup.step(Received(order(A)))
    assert backup.step(Judged(0, 1, name, "")) == []
    assert backup.step(Judged(0, 1, name, "another sum")) == []
    assert backup.step(Held(name, A)) == [Judge(0, 1, name, A)]


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
