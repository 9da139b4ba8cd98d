"""A verifier of certificates, balances and receipts, written from docs/PROTOCOL.md alone. Uses nothing of potd.

Whatever it is shown may be a lie: it returns what is proved, and raises Unproved for everything else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgpack
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

ACCOUNT, GENESIS, RECEIPT, HEADER, CERTIFICATE, SNAPSHOT, PART, PROOF, NEIGHBOUR = (
    110,
    12,
    51,
    52,
    53,
    157,
    159,
    101,
    100,
)


class Unproved(Exception):
    """What was shown does not prove what it should; the text says why."""


# Section 1 and 2: digests and bytes


def u64(number: int) -> bytes:
    return number.to_bytes(8, "big")


def digest(domain: str, *parts: bytes) -> bytes:
    return sha(b"".join(u64(len(part)) + part for part in (b"potd/" + domain.encode(), *parts)))


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def encode(value: Any) -> bytes:
    data: bytes = msgpack.packb(value, use_bin_type=True)
    return data


def message(data: bytes, tag: int, fields: int) -> list[Any]:
    """The fields of a message of this tag, from the only bytes that it has."""
    try:
        value = msgpack.unpackb(data, raw=False)
    except ValueError as error:
        raise Unproved("not msgpack") from error
    if encode(value) != data:
        raise Unproved("not the one encoding")
    return body(value, tag, fields)


def body(value: Any, tag: int, fields: int) -> list[Any]:
    if not isinstance(value, list) or len(value) != fields + 1 or type(value[0]) is not int or value[0] != tag:
        raise Unproved(f"no message with tag {tag} and {fields} fields")
    return value[1:]


def is_name(value: Any) -> bool:
    return isinstance(value, bytes) and len(value) == 32


# Section 7 and 16: certificates, and who may sign them


@dataclass(frozen=True)
class Header:
    """What a quorum has signed."""

    encoded: bytes
    height: int
    previous: bytes
    batch: bytes
    receipts: bytes
    state: bytes
    history: bytes
    validators: bytes

    @property
    def name(self) -> bytes:
        return digest("header", self.encoded)


@dataclass(frozen=True)
class Chain:
    """Who decides which heights: sets of validators, each with the last height before its own."""

    network: bytes
    sets: tuple[tuple[int, tuple[bytes, ...]], ...]

    @staticmethod
    def begin(genesis: bytes) -> Chain:
        validators = tuple(message(genesis, GENESIS, 6)[3])
        return Chain(digest("genesis", genesis), ((0, validators),))

    def certified(self, certificate: Any) -> Header:
        """The header of a certificate, if a quorum of those who decide its height has signed it."""
        header, attestations = body(certificate, CERTIFICATE, 2)
        found = self.header(header)
        keys = next((keys for base, keys in reversed(self.sets) if base < found.height), ())
        signers = [body(one, 3, 2) for one in attestations]
        names = [key for key, _ in signers]
        if names != sorted(set(names)) or not set(names) <= set(keys):
            raise Unproved("signers out of order, twice, or strangers")
        if len(names) < quorum(len(keys)):
            raise Unproved(f"{len(names)} signatures of {quorum(len(keys))}")
        signed = b"potd signature\x00" + self.network + HEADER.to_bytes(4, "big") + found.encoded
        for key, signature in signers:
            try:
                VerifyKey(key).verify(signed, signature)
            except (BadSignatureError, ValueError) as error:
                raise Unproved("a wrong signature") from error
        return found

    def header(self, value: Any) -> Header:
        network, protocol, height, previous, *roots = body(value, HEADER, 9)
        if network != self.network or protocol != 1:
            raise Unproved("of another network or protocol")
        return Header(encode(value), height, previous, *roots)

    def handed_over(self, end: Any, keys: Sequence[bytes]) -> Chain:
        """With the set that decides what comes after the height that this certificate is of."""
        header = self.certified(end)
        if header.height <= self.sets[-1][0]:
            raise Unproved("a handover that is not after the one before")
        if header.validators != digest("validators", *keys):
            raise Unproved("a handover to others than the header names")
        return Chain(self.network, (*self.sets, (header.height, tuple(keys))))


def quorum(validators: int) -> int:
    faulty = (validators - 1) // 3
    return -(-(validators + faulty + 1) // 2)


def snapshot(chain: Chain, data: bytes) -> tuple[Chain, Header]:
    """What an answer about a snapshot proves: the sets up to its height, and its header."""
    certificate, ends, sets = message(data, SNAPSHOT, 3)
    if len(ends) != len(sets):
        raise Unproved("handovers that are not complete")
    for end, keys in zip(ends, sets, strict=True):
        chain = chain.handed_over(end, keys)
    return chain, chain.certified(certificate)


# Section 4 and 16: the state


def bits(position: bytes) -> str:
    return "".join(f"{byte:08b}" for byte in position)


def account_at(header: Header, account: bytes, data: bytes) -> tuple[int, int] | None:
    """Balance and nonce of an account in the state of a certified header, or that there is none; by the answer to
    WantPart with the account's position and length 256."""
    keys, values, proofs = message(data, PART, 3)
    if len(proofs) != 1 or len(keys) != len(values) or len(keys) > 1:
        raise Unproved("not an answer about one position")
    key = b"a" + account
    wanted = sha(b"potd map key\x00" + key)
    branches, siblings, neighbours = body(proofs[0], PROOF, 3)
    if len(branches) != len(siblings) or branches != sorted(set(branches)):
        raise Unproved("branches that do not go down")
    if keys:
        if keys != [key] or neighbours:
            raise Unproved("the entry of another")
        place, value = wanted, sha(values[0])
    elif not neighbours:
        if branches or header.state != sha(b"\x12"):
            raise Unproved("nothing, in a state that is not empty")
        return None
    else:
        place, value = body(neighbours[0], NEIGHBOUR, 2)
        if not is_name(place) or not is_name(value):
            raise Unproved("a neighbour with names of another length")
        pairs = zip(bits(place), bits(wanted), strict=True)
        fork = next((at for at, (one, other) in enumerate(pairs) if one != other), None)
        if fork is None or fork in branches:
            raise Unproved("a neighbour that leaves room for the account")
    here = sha(b"\x10" + place + value)
    for bit, sibling in reversed(list(zip(branches, siblings, strict=True))):
        if not is_name(sibling):
            raise Unproved("a sibling that is no hash")
        left, right = (sibling, here) if bits(place)[bit] == "1" else (here, sibling)
        here = sha(b"\x11" + bytes([bit]) + left + right)
    if here != header.state:
        raise Unproved("not of this state")
    if not keys:
        return None
    _, _, balance, nonce = message(values[0], ACCOUNT, 4)
    return balance, nonce


# Section 4 and 16: lists, for receipts and for earlier headers


def led_up(leaf: bytes, index: int, count: int, siblings: Sequence[bytes]) -> bytes:
    """The root to which the siblings lead from a leaf at `index` of `count`."""
    if not 0 <= index < count:
        raise Unproved("a place that is not there")
    rest: Iterator[bytes] = iter(siblings)
    here = leaf
    while count > 1:
        if index ^ 1 < count:
            other = next(rest, None)
            if other is None or not is_name(other):
                raise Unproved("too few siblings")
            here = sha(b"\x01" + (other + here if index % 2 else here + other))
        index, count = index // 2, (count + 1) // 2
    if next(rest, None) is not None:
        raise Unproved("too many siblings")
    return here


def outcome(header: Header, operation: bytes, receipt: bytes, index: int, count: int, siblings: Sequence[bytes]) -> str:
    """Why the operation, an encoded Signed, was not applied at this height; nothing if it was."""
    record, reason = message(receipt, RECEIPT, 2)
    if record != digest("record", operation):
        raise Unproved("the receipt of another record")
    if led_up(sha(b"\x00" + receipt), index, count, siblings) != header.receipts:
        raise Unproved("not of this height")
    assert isinstance(reason, str)
    return reason


def is_before(header: Header, earlier: Header, siblings: Sequence[bytes]) -> bool:
    """Whether the certified header has the earlier one in its history."""
    leaf = sha(b"\x00" + earlier.name)
    return led_up(leaf, earlier.height - 1, header.height - 1, siblings) == header.history
