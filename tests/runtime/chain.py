"""Batches, headers and certificates that look right, for tests of what stores and serves them."""

from __future__ import annotations

from potd.wire.blocks import Batch, Block, Certificate, Header, batch_digest
from potd.wire.envelope import Signed, Signer, attestation_of
from potd.wire.ids import NOTHING
from potd.wire.operations import Transfer

NETWORK = bytes(range(32))
SIGNER = Signer(bytes(32), NETWORK)


def transfer(nonce: int) -> Signed:
    return SIGNER.sign(Transfer(NOTHING, nonce, NOTHING, 1, ""))


def batch(height: int) -> Batch:
    return Batch((transfer(height),))


def header(height: int) -> Header:
    digest = batch_digest(batch(height))
    return Header(NETWORK, 1, height, NOTHING, digest, NOTHING, NOTHING, NOTHING, NOTHING)


def certificate(height: int) -> Certificate:
    return Certificate(header(height), (attestation_of(SIGNER.sign(header(height))),))


def block(height: int) -> Block:
    return Block(header(height), certificate(height).attestations, batch(height))
