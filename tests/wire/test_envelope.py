"""Signatures: by whom, on which network, as which kind of message."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import VerifyKey

from potd.wire import envelope
from potd.wire.codec import Malformed, encode
from potd.wire.consensus import Commit, Prepare, PrePrepare
from potd.wire.envelope import Attestation, Signed, Signer, Verified, attestation_of, attests, verify
from potd.wire.ids import digest

NETWORK, OTHER_NETWORK = digest("test", b"network"), digest("test", b"another")
SIGNER, OTHER = Signer(bytes(32), NETWORK), Signer(b"\x01" * 32, NETWORK)
COMMIT = Commit(3, 4, digest("test", b"batch"))


def test_what_is_signed_verifies_to_its_body_and_its_sender() -> None:
    signed = SIGNER.sign(COMMIT)
    assert verify(signed, NETWORK, Commit) == Verified(SIGNER.key, COMMIT, signed) == SIGNER.verified(COMMIT)
    assert signed.payload == encode(COMMIT)


def test_the_signed_bytes_are_a_domain_the_network_the_tag_and_the_payload() -> None:
    signed = SIGNER.sign(COMMIT)
    bound = b"potd signature\x00" + NETWORK + (63).to_bytes(4, "big") + encode(COMMIT)
    assert VerifyKey(SIGNER.key).verify(bound, signed.signature) == bound


def test_signing_draws_no_chance() -> None:
    assert SIGNER.sign(COMMIT) == Signer(bytes(32), NETWORK).sign(COMMIT)


def test_a_signature_is_worth_nothing_on_another_network() -> None:
    with pytest.raises(Malformed, match="wrong signature on Commit"):
        verify(SIGNER.sign(COMMIT), OTHER_NETWORK, Commit)
    assert not attests(attestation_of(SIGNER.sign(COMMIT)), OTHER_NETWORK, COMMIT)


def test_a_signature_is_worth_nothing_as_another_kind_of_message() -> None:
    # Commit and PrePrepare have the same fields: only the tag tells them apart.
    commit = SIGNER.sign(COMMIT)
    pre_prepare = PrePrepare(COMMIT.view, COMMIT.seq, COMMIT.batch)
    with pytest.raises(Malformed, match="wrong signature on PrePrepare"):
        verify(replace(commit, payload=encode(pre_prepare)), NETWORK, PrePrepare)
    assert not attests(attestation_of(commit), NETWORK, pre_prepare)
    with pytest.raises(Malformed, match="tag 63 where PrePrepare is expected"):
        verify(commit, NETWORK, PrePrepare)


def test_a_signature_is_worth_nothing_under_another_key() -> None:
    with pytest.raises(Malformed, match="wrong signature"):
        verify(replace(SIGNER.sign(COMMIT), key=OTHER.key), NETWORK, Commit)
    with pytest.raises(Malformed, match="wrong signature"):
        verify(replace(SIGNER.sign(COMMIT), signature=OTHER.sign(COMMIT).signature), NETWORK, Commit)


@given(st.integers(0, 511), st.integers(0, 255))
def test_one_bit_of_the_signature_or_the_key_changes_everything(in_signature: int, in_key: int) -> None:
    signed = SIGNER.sign(COMMIT)
    for damaged in (
        replace(signed, signature=_flipped(signed.signature, in_signature)),
        replace(signed, key=_flipped(signed.key, in_key)),
    ):
        with pytest.raises(Malformed):
            verify(damaged, NETWORK, Commit)


@given(st.data())
def test_one_bit_of_the_payload_changes_everything(data: st.DataObject) -> None:
    signed = SIGNER.sign(COMMIT)
    bit = data.draw(st.integers(0, 8 * len(signed.payload) - 1))
    with pytest.raises(Malformed):
        verify(replace(signed, payload=_flipped(signed.payload, bit)), NETWORK, Commit, Prepare, PrePrepare)


def test_the_same_signature_written_otherwise_is_refused() -> None:
    # s and s + L satisfy the same equation; only the smaller is a signature. [RFC 8032 5.1.7]
    order = 2**252 + 27742317777372353535851937790883648493
    signed = SIGNER.sign(COMMIT)
    larger = int.from_bytes(signed.signature[32:], "little") + order
    forged = replace(signed, signature=signed.signature[:32] + larger.to_bytes(32, "little"))
    with pytest.raises(Malformed, match="wrong signature"):
        verify(forged, NETWORK, Commit)


@pytest.mark.parametrize("key", [bytes(32), b"\x01" + bytes(31), b"\xff" * 32], ids=["zero", "identity", "no point"])
def test_a_key_under_which_anything_would_verify_is_refused(key: bytes) -> None:
    # Under a point of small order, the identity as R and a zero s satisfy the equation for many messages.
    for signature in (bytes(64), b"\x01" + bytes(63)):
        with pytest.raises(Malformed, match="wrong signature"):
            verify(Signed(key, encode(COMMIT), signature), NETWORK, Commit)


def test_an_attestation_holds_for_the_body_that_its_reader_rebuilds() -> None:
    attestation = attestation_of(SIGNER.sign(COMMIT))
    assert attestation == Attestation(SIGNER.key, SIGNER.sign(COMMIT).signature)
    assert attests(attestation, NETWORK, Commit(3, 4, COMMIT.batch))
    assert not attests(attestation, NETWORK, replace(COMMIT, seq=5))
    assert not attests(replace(attestation, key=OTHER.key), NETWORK, COMMIT)


def test_a_payload_that_does_not_decode_is_refused_before_its_signature_matters() -> None:
    with pytest.raises(Malformed, match="not msgpack|not an array"):
        verify(Signed(SIGNER.key, b"\xc1", bytes(64)), NETWORK, Commit)


def test_a_signature_that_held_is_not_worked_out_again(monkeypatch: pytest.MonkeyPatch) -> None:
    signed, unseen = SIGNER.sign(replace(COMMIT, seq=77)), SIGNER.sign(replace(COMMIT, seq=78))
    verify(signed, NETWORK, Commit)
    monkeypatch.setattr(envelope, "VerifyKey", None)
    assert verify(signed, NETWORK, Commit).body.seq == 77
    with pytest.raises(TypeError):
        verify(unseen, NETWORK, Commit)


def test_a_signature_that_held_once_holds_for_nothing_else() -> None:
    signed = SIGNER.sign(replace(COMMIT, seq=79))
    verify(signed, NETWORK, Commit)
    for _ in range(2):
        for other in (replace(signed, key=OTHER.key), replace(signed, payload=encode(replace(COMMIT, seq=80)))):
            with pytest.raises(Malformed, match="wrong signature"):
                verify(other, NETWORK, Commit)
        with pytest.raises(Malformed, match="wrong signature"):
            verify(signed, OTHER_NETWORK, Commit)


def test_of_signatures_that_held_only_so_many_are_kept() -> None:
    held = envelope.Held()
    names = [index.to_bytes(4, "big") for index in range(2 * envelope.HELD_MAX + 5)]
    for name in names:
        held.add(name)
    assert sum(name in held for name in names) == envelope.HELD_MAX + 5
    assert all(name in held for name in names[-envelope.HELD_MAX :])


def test_secrets_differ_by_purpose_context_key_and_network() -> None:
    secrets = {
        SIGNER.derive("salt", b"1"),
        SIGNER.derive("salt", b"2"),
        SIGNER.derive("salt", b"1", b""),
        SIGNER.derive("audit", b"1"),
        OTHER.derive("salt", b"1"),
        Signer(bytes(32), OTHER_NETWORK).derive("salt", b"1"),
    }
    assert len(secrets) == 6
    assert SIGNER.derive("salt", b"1") == Signer(bytes(32), NETWORK).derive("salt", b"1")


def test_only_messages_are_signed() -> None:
    @dataclass(frozen=True)
    class Plain:
        pass

    with pytest.raises(Malformed, match="Plain is not a message"):
        SIGNER.sign(Plain())


def _flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)
