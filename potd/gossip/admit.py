"""Bytes to verified messages, or a reason why not. Pure, so that the network may ask on any thread."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from potd.wire.blocks import BATCH_BYTES_MAX, Batch, Certificate, batch_digest
from potd.wire.codec import Malformed, decode, encode
from potd.wire.consensus import WORDS, PrePrepare, Proposal, Word
from potd.wire.envelope import Signed, Verified, verify
from potd.wire.ids import Digest
from potd.wire.operations import OPERATIONS, Operation
from potd.wire.rounds import Commitment, Draft, Link, Report

GOSSIP_BYTES_MAX = 64 * 1024

Said = Word | Report | Draft | Link | Commitment | Operation
_SAID = (*WORDS, Report, Draft, Link, Commitment, *OPERATIONS)
_ENVELOPES: tuple[type[Signed] | type[Proposal] | type[Certificate], ...] = (Signed, Proposal, Certificate)


class Screening(Enum):
    """What becomes of gossip that somebody forwarded to us, in GossipSub 1.1's words."""

    ACCEPT = "accept"  # heard, and forwarded
    IGNORE = "ignore"  # neither, and held against nobody
    REJECT = "reject"  # neither, and counted against who forwarded it: an honest node would not have


@dataclass(frozen=True)
class Ordered:
    """A pre-prepare and the batch that it names."""

    pre_prepare: Verified[PrePrepare]
    digest: Digest
    batch: Batch


def admit_frame(data: bytes, network: Digest) -> Verified[Said] | Ordered | Certificate:
    """What a peer sent us directly. Raises Malformed."""
    envelope = decode(data, *_ENVELOPES)
    if isinstance(envelope, Certificate):
        return envelope
    if isinstance(envelope, Signed):
        return verify(envelope, network, *_SAID)
    message = verify(envelope.pre_prepare, network, PrePrepare)
    digest = batch_digest(envelope.batch)
    if message.body.batch != digest:
        raise Malformed("proposal with another batch than its order names")
    if len(encode(envelope.batch)) > BATCH_BYTES_MAX:
        raise Malformed("proposal with too large a batch")
    return Ordered(message, digest, envelope.batch)


def admit_commitment(data: bytes, network: Digest) -> Verified[Commitment]:
    """A commitment heard by gossip. Raises Malformed."""
    return verify(decode(data, Signed), network, Commitment)


def admit_certificate(data: bytes, network: Digest) -> Certificate:
    """A certificate heard by gossip. Whether its signers are validators is for the node to say. Raises Malformed."""
    certificate = decode(data, Certificate)
    if certificate.header.network != network:
        raise Malformed("certificate of another network")
    return certificate


def admit_operation(data: bytes, network: Digest) -> Verified[Operation]:
    """An operation heard by gossip. Raises Malformed."""
    return verify(decode(data, Signed), network, *OPERATIONS)


def screen(topic: str, data: bytes, network: Digest) -> Screening:
    """Whether a message heard on a topic is worth passing on, as far as its bytes tell. Never raises."""
    if len(data) > GOSSIP_BYTES_MAX:
        return Screening.REJECT
    try:
        match topic:
            case "commitments":
                admit_commitment(data, network)
            case "certificates":
                admit_certificate(data, network)
            case "operations":
                admit_operation(data, network)
            case _:
                return Screening.REJECT
    except Malformed:
        return Screening.REJECT
    return Screening.ACCEPT
