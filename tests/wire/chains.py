"""A hash chain by its secret, one link at a time."""

from __future__ import annotations

from potd.wire.audits import CHAIN_ROUNDS, hashed
from potd.wire.ids import Digest


def link_of(secret: Digest, begins: int, number: int) -> Digest:
    """The link of a round in the chain that ends in `secret`."""
    assert begins <= number < begins + CHAIN_ROUNDS, "a round beyond the chain"
    return hashed(secret, begins + CHAIN_ROUNDS - 1 - number)


def tip_of(secret: Digest) -> Digest:
    return hashed(secret, CHAIN_ROUNDS)
