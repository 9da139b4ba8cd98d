"""Bytes become verified messages, or a reason why not; nothing that a peer can send raises anything else."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from potd.gossip.admit import (
    GOSSIP_BYTES_MAX,
    Ordered,
    Screening,
    admit_certificate,
    admit_commitment,
    admit_frame,
    admit_operation,
    screen,
)
from potd.wire.blocks import BATCH_BYTES_MAX, NULL, Batch, Certificate, Header, batch_digest
from potd.wire.codec import Malformed, encode
from potd.wire.consensus import Commit, NewView, Prepare, PrePrepare, Proposal, Refusal, Status, ViewChange
from potd.wire.envelope import Attestation, Signed, Signer, Verified
from potd.wire.ids import NOTHING, BlobRef, account_id, digest
from potd.wire.operations import Leave, Transfer
from potd.wire.rounds import Commitment, Draft, Report, Step

NETWORK, ELSEWHERE = digest("network"), digest("another network")
SIGNER, OTHER = (Signer(bytes([seed]) * 32, NETWORK) for seed in (1, 2))
FOREIGNER = Signer(bytes([1]) * 32, ELSEWHERE)
TASK = digest("task")
ACCOUNT = account_id(SIGNER.key)

COMMITMENT = Commitment(
    TASK, 1, ACCOUNT, digest("model"), BlobRef(digest("p"), 9), 8, True, 5, NOTHING, "float32", NOTHING
)
REPORT = Report(TASK, 1, Step.SEAL.value, (), (), ())
HEADER = Header(NETWORK, 1, 1, NOTHING, batch_digest(NULL), NOTHING, NOTHING, NOTHING, NOTHING)
TRANSFER = Transfer(ACCOUNT, 0, digest("to"), 5, "")
BATCH = Batch((SIGNER.sign(TRANSFER),))
ORDER = PrePrepare(0, 1, batch_digest(BATCH))

SAID = (
    ORDER,
    Prepare(0, 1, ORDER.batch, bytes(64)),
    Commit(0, 1, ORDER.batch),
    HEADER,
    ViewChange(1, 0, (), ()),
    NewView(1, (SIGNER.sign(ViewChange(1, 0, (), ())),), ()),
    Refusal(0, 1, ORDER.batch, bytes(64), "no"),
    Status(0, False, 0, 0),
    REPORT,
    Draft(0, 0, TASK, 1, Step.UPDATE.value, (SIGNER.sign(REPORT),)),
    COMMITMENT,
)

CERTIFICATE = Certificate(HEADER, (Attestation(SIGNER.key, SIGNER.sign(HEADER).signature),))
GOOD = {
    "commitments": encode(SIGNER.sign(COMMITMENT)),
    "certificates": encode(CERTIFICATE),
    "operations": encode(SIGNER.sign(TRANSFER)),
}


def forged(signed: Signed) -> Signed:
    """The same words with another's name on them."""
    return Signed(OTHER.key, signed.payload, signed.signature)


@pytest.mark.parametrize("body", SAID, ids=lambda body: type(body).__name__)
def test_what_a_peer_says_directly_comes_verified(body: object) -> None:
    signed = SIGNER.sign(body)
    assert admit_frame(encode(signed), NETWORK) == Verified(SIGNER.key, body, signed)


@pytest.mark.parametrize("body", SAID, ids=lambda body: type(body).__name__)
def test_a_forged_or_foreign_word_is_refused(body: object) -> None:
    for signed in (forged(SIGNER.sign(body)), FOREIGNER.sign(body)):
        with pytest.raises(Malformed, match="wrong signature"):
            admit_frame(encode(signed), NETWORK)


def test_a_proposal_brings_the_batch_that_its_order_names() -> None:
    frame = encode(Proposal(SIGNER.sign(ORDER), BATCH))
    assert admit_frame(frame, NETWORK) == Ordered(SIGNER.verified(ORDER), ORDER.batch, BATCH)


def test_a_proposal_with_another_batch_is_refused() -> None:
    with pytest.raises(Malformed, match="another batch"):
        admit_frame(encode(Proposal(SIGNER.sign(ORDER), NULL)), NETWORK)


def test_a_proposal_whose_order_is_something_else_is_refused() -> None:
    with pytest.raises(Malformed):
        admit_frame(encode(Proposal(SIGNER.sign(Commit(0, 1, ORDER.batch)), BATCH)), NETWORK)


def test_a_proposal_with_too_large_a_batch_is_refused() -> None:
    count = BATCH_BYTES_MAX // (300 * 1024) + 1
    large = Batch(tuple(Signed(SIGNER.key, bytes(300 * 1024), bytes([index]) * 64) for index in range(count)))
    order = SIGNER.sign(PrePrepare(0, 1, batch_digest(large)))
    with pytest.raises(Malformed, match="too large"):
        admit_frame(encode(Proposal(order, large)), NETWORK)


def test_a_certificate_may_come_directly_and_is_checked_by_who_knows_the_validators() -> None:
    assert admit_frame(encode(CERTIFICATE), NETWORK) == CERTIFICATE


def test_an_operation_may_be_forwarded_on_a_direct_stream() -> None:
    assert admit_frame(GOOD["operations"], NETWORK) == SIGNER.verified(TRANSFER)


def test_each_topic_takes_its_own_kind() -> None:
    assert admit_commitment(GOOD["commitments"], NETWORK) == SIGNER.verified(COMMITMENT)
    assert admit_certificate(GOOD["certificates"], NETWORK) == CERTIFICATE
    assert admit_operation(GOOD["operations"], NETWORK) == SIGNER.verified(TRANSFER)
    leave = Leave(ACCOUNT, 0, TASK)
    assert admit_operation(encode(SIGNER.sign(leave)), NETWORK) == SIGNER.verified(leave)


@pytest.mark.parametrize("topic", GOOD)
@pytest.mark.parametrize("kind", GOOD)
def test_a_topic_passes_on_its_own_kind_only(topic: str, kind: str) -> None:
    assert (screen(topic, GOOD[kind], NETWORK) is Screening.ACCEPT) == (topic == kind)


@pytest.mark.parametrize("topic", GOOD)
def test_a_message_of_another_network_is_not_passed_on(topic: str) -> None:
    assert screen(topic, GOOD[topic], ELSEWHERE) is Screening.REJECT


@pytest.mark.parametrize(("topic", "body"), [("commitments", COMMITMENT), ("operations", TRANSFER)])
def test_a_forged_message_is_not_passed_on(topic: str, body: object) -> None:
    assert screen(topic, encode(forged(SIGNER.sign(body))), NETWORK) is Screening.REJECT


@pytest.mark.parametrize("topic", GOOD)
def test_a_message_too_large_for_gossip_is_not_passed_on(topic: str) -> None:
    assert screen(topic, bytes(GOSSIP_BYTES_MAX + 1), NETWORK) is Screening.REJECT


def test_large_gossip_is_refused_though_it_be_well_made() -> None:
    signers = sorted((Signer(index.to_bytes(32, "big"), NETWORK) for index in range(700)), key=lambda one: one.key)
    crowd = tuple(Attestation(one.key, bytes(64)) for one in signers)
    large = encode(Certificate(HEADER, crowd))
    assert len(large) > GOSSIP_BYTES_MAX
    assert screen("certificates", large, NETWORK) is Screening.REJECT


def test_an_unknown_topic_passes_nothing_on() -> None:
    assert screen("gossip", GOOD["operations"], NETWORK) is Screening.REJECT


@given(st.sampled_from((*GOOD, "gossip")), st.binary(max_size=300))
def test_garbage_is_screened_and_raises_nothing(topic: str, data: bytes) -> None:
    assert screen(topic, data, NETWORK) is Screening.REJECT


@given(st.sampled_from(sorted(GOOD)), st.integers(0, 10_000), st.integers(0, 255))
def test_a_message_with_one_byte_changed_is_screened(topic: str, at: int, value: int) -> None:
    good = GOOD[topic]
    changed = bytearray(good)
    changed[at % len(good)] = value
    passed = screen(topic, bytes(changed), NETWORK)
    if topic != "certificates":  # whose signatures are for the node to check
        assert (passed is Screening.ACCEPT) == (bytes(changed) == good)


@given(st.sampled_from(sorted(GOOD)), st.integers(0, 10_000))
def test_a_message_cut_short_or_followed_by_more_is_screened(topic: str, at: int) -> None:
    good = GOOD[topic]
    assert screen(topic, good[: at % len(good)], NETWORK) is Screening.REJECT
    assert screen(topic, good + bytes(at % 7 + 1), NETWORK) is Screening.REJECT


FRAMES = [encode(SIGNER.sign(body)) for body in SAID] + [encode(Proposal(SIGNER.sign(ORDER), BATCH))]


@given(st.one_of(st.binary(max_size=300), st.sampled_from(FRAMES)), st.integers(0, 10_000), st.integers(0, 255))
def test_a_frame_is_admitted_or_malformed(data: bytes, at: int, value: int) -> None:
    changed = bytearray(data)
    if changed:
        changed[at % len(changed)] = value
    try:
        admitted = admit_frame(bytes(changed), NETWORK)
    except Malformed:
        return
    assert bytes(changed) in FRAMES, admitted


@given(
    st.recursive(
        st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=40) | st.text(max_size=9) | st.none() | st.floats(),
        lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.integers(0, 9), inner, max_size=3),
        max_leaves=20,
    )
)
def test_any_msgpack_is_admitted_or_malformed(value: object) -> None:
    for tag in (1, 53, 61):
        data = msgpack.packb([tag, *value] if isinstance(value, list) else value)
        assert screen("operations", data, NETWORK) is Screening.REJECT
        with pytest.raises(Malformed):
            admit_frame(data, NETWORK)
