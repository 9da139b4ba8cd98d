"""Batches, headers and the certificates over them: the chain as bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from potd.wire.codec import U32, U63, Size, encode, message
from potd.wire.envelope import Attestation, Signed
from potd.wire.ids import Digest, Key, digest
from potd.wire.rounds import MINERS_MAX, VALIDATORS_MAX, Evaluation, Seal, Update

BATCH_BYTES_MAX = 4 * 1024 * 1024  # a seal of 1,200 miners by 31 validators who all heard other things is half of it

Record = Signed | Seal | Update | Evaluation  # a Signed record is an operation


@message(50)
@dataclass(frozen=True)
class Batch:
    """What one sequence number orders. Names no parent; an empty one is the null request."""

    records: Annotated[tuple[Signed | Seal | Update | Evaluation, ...], Size(0, 4096)]


NULL = Batch(())


def batch_digest(batch: Batch) -> Digest:
    return digest("batch", encode(batch))


_NAME_BYTES, _COMMITMENT_BYTES = 34, 512  # a commitment's name, and itself, at most


def miners_max(validators: int) -> int:
    """How many miners a task can have, so that a seal fits half a batch even if no two validators name the same.

    Then there is a name for each validator and miner, and for each report a bit for each name."""
    a_miner = validators * _NAME_BYTES + validators * validators // 8 + _COMMITMENT_BYTES
    return min(MINERS_MAX, BATCH_BYTES_MAX // 2 // a_miner)


@message(51)
@dataclass(frozen=True)
class Receipt:
    """What became of a record, the same on every replica. An empty reason means that it was applied."""

    record: Digest
    reason: Annotated[str, Size(0, 256)]


@message(52)
@dataclass(frozen=True)
class Header:
    """The state after one batch. Signed by every validator after executing: PBFT's CHECKPOINT. [4.3]"""

    network: Digest
    protocol: U32
    height: U63
    previous: Digest
    batch: Digest
    receipts: Digest
    state: Digest
    history: Digest
    validators: Digest  # those who decide the next height


def header_digest(header: Header) -> Digest:
    return digest("header", encode(header))


def validators_digest(keys: Sequence[Key]) -> Digest:
    """What a header says of those who decide the next height, in the order in which they become primary."""
    return digest("validators", *keys)


def record_digest(record: Record) -> Digest:
    return digest("record", encode(record))


@message(53)
@dataclass(frozen=True)
class Certificate:
    """A header and a quorum of signatures over it, by key, from any views."""

    header: Header
    attestations: Annotated[tuple[Attestation, ...], Size(1, VALIDATORS_MAX)]


@message(54)
@dataclass(frozen=True)
class Block:
    """A height and its batch. Without attestations it is vouched for by the next certified header, whose chain of
    `previous` leads to it."""

    header: Header
    attestations: Annotated[tuple[Attestation, ...], Size(0, VALIDATORS_MAX)]  # a quorum's, by key, or none
    batch: Batch

    def certificate(self) -> Certificate | None:
        return Certificate(self.header, self.attestations) if self.attestations else None
