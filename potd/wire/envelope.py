"""Signatures: who said these bytes, on which network, as which kind of message. Knows nothing of what they mean.

The signed bytes are a domain, the genesis digest, the message's tag and the payload, so that nothing said on
one network, or as one kind of message, is ever worth anything on another or as another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from potd.wire.codec import Malformed, Size, decode, encode, message, tag_of
from potd.wire.ids import Digest, Key, digest

T = TypeVar("T", covariant=True)
B = TypeVar("B")

PAYLOAD_BYTES_MAX = 4 * 1024 * 1024
HELD_MAX = 1 << 15  # signatures of a generation; a NEW-VIEW of 31 validators and a window of 16 shows some 7,000
Signature = Annotated[bytes, Size(64, 64)]


@message(1)
@dataclass(frozen=True)
class Signed:
    """A payload as it was sent, and its sender's signature."""

    key: Key
    payload: Annotated[bytes, Size(1, PAYLOAD_BYTES_MAX)]
    signature: Signature


@message(3)
@dataclass(frozen=True, order=True)
class Attestation:
    """One signature over a body that the reader rebuilds: what a certificate is made of."""

    key: Key
    signature: Signature


@dataclass(frozen=True)
class Verified(Generic[T]):
    """A body whose signature held. The cores accept nothing else from outside."""

    sender: Key
    body: T
    signed: Signed


def _bound(network: bytes, tag: int, payload: bytes) -> bytes:
    return b"potd signature\x00" + network + tag.to_bytes(4, "big") + payload


class Held:
    """Signatures that held, by a hash of all that went into them: a proof shows again what came as a message before.

    Two generations, so that the newer half is always there. Of those that did not hold none is kept, for a liar makes
    as many as it likes. Threads may meet here: at worst one forgets what another has just found out.
    """

    def __init__(self) -> None:
        self._new: set[bytes] = set()
        self._old: set[bytes] = set()

    def __contains__(self, name: bytes) -> bool:
        return name in self._new or name in self._old

    def add(self, name: bytes) -> None:
        self._new.add(name)
        if len(self._new) >= HELD_MAX:
            self._old, self._new = self._new, set()


_held = Held()


def _holds(key: bytes, signature: bytes, data: bytes) -> bool:
    name = digest("signature", key, signature, data)
    if name in _held:
        return True
    try:
        VerifyKey(key).verify(data, signature)
    except (BadSignatureError, ValueError):
        return False
    _held.add(name)
    return True


class Signer:
    """Signs with one Ed25519 key for one network. Ed25519 draws no chance: the same body gives the same bytes."""

    def __init__(self, seed: bytes, network: Digest) -> None:
        self._key = SigningKey(seed)
        self.key: Key = bytes(self._key.verify_key)
        self.network = network

    def derive(self, purpose: str, *context: bytes) -> Digest:
        """A secret of this key for one purpose: the same again after a restart, unknown to everybody else."""
        return digest(f"secret/{purpose}", bytes(self._key), self.network, *context)

    def sign(self, body: Any) -> Signed:
        payload = encode(body)
        bound = _bound(self.network, tag_of(type(body)), payload)
        return Signed(self.key, payload, self._key.sign(bound).signature)

    def verified(self, body: B) -> Verified[B]:
        """What everybody will make of the body once we have signed and sent it."""
        return Verified(self.key, body, self.sign(body))


def verify(signed: Signed, network: Digest, *expected: type[B]) -> Verified[B]:
    """Check, then decode. Raises Malformed for a wrong signature, kind, network or encoding."""
    body = decode(signed.payload, *expected)
    if not _holds(signed.key, signed.signature, _bound(network, tag_of(type(body)), signed.payload)):
        raise Malformed(f"wrong signature on {type(body).__name__}")
    return Verified(signed.key, body, signed)


def attests(attestation: Attestation, network: Digest, body: Any) -> bool:
    """Whether this is a signature over that body."""
    bound = _bound(network, tag_of(type(body)), encode(body))
    return _holds(attestation.key, attestation.signature, bound)


def attestation_of(signed: Signed) -> Attestation:
    return Attestation(signed.key, signed.signature)
