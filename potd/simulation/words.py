"""What has been said: the signed words in frames, and the question that each of them answers once and for ever."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from potd.wire.blocks import Certificate, Header
from potd.wire.codec import Malformed, decode
from potd.wire.consensus import WORDS, Commit, NewView, Prepare, PrePrepare, Proposal, Refusal, ViewChange
from potd.wire.envelope import Signed
from potd.wire.ids import Key
from potd.wire.operations import OPERATIONS, Operation
from potd.wire.rounds import Commitment, Draft, Link, Report

SPOKEN = (*WORDS, Report, Draft, Link, Commitment, *OPERATIONS)
KEPT_MAX = 1 << 14  # frames and payloads that are kept decoded, for all nodes together


@lru_cache(KEPT_MAX)
def signed_in(data: bytes) -> Signed | None:
    """The signed word that a frame or a message carries, if it carries one."""
    try:
        envelope = decode(data, Signed, Proposal, Certificate)
    except Malformed:
        return None
    if isinstance(envelope, Proposal):
        return envelope.pre_prepare
    return envelope if isinstance(envelope, Signed) else None


@lru_cache(KEPT_MAX)
def kind_of(data: bytes) -> str:
    """What a frame or a message is: the name of its word, or Certificate."""
    signed = signed_in(data)
    if signed is None:
        return "Certificate"
    return type(body_of(signed.payload)).__name__


@lru_cache(KEPT_MAX)
def body_of(payload: bytes) -> object | None:
    """What was signed, if it is a word that nodes say."""
    try:
        body: object = decode(payload, *SPOKEN)
    except Malformed:
        return None
    return body


def signed_by(key: Key, sent: Iterable[bytes]) -> list[Signed]:
    """The messages of one key among frames and gossip, each once, in order."""
    found = (signed_in(data) for data in sent)
    return list(dict.fromkeys(one for one in found if one is not None and one.key == key))


def asked(body: object) -> tuple[object, ...] | None:
    """The question that a word answers, to which an honest node has one answer in all its lives; None if it has not."""
    kind = type(body).__name__
    match body:
        case PrePrepare() | Prepare() | Commit():
            return kind, body.view, body.seq
        case Refusal():
            return "Prepare", body.view, body.seq  # who has refused does not agree
        case Header():
            return kind, body.height
        case ViewChange() | NewView():
            return kind, body.view
        case Report():
            return kind, body.task, body.round, body.step
        case Draft():
            return kind, body.task, body.round, body.base, body.view
        case Commitment() | Link():
            return kind, body.task, body.round
        case _:
            return ("operation", body.account, body.nonce) if isinstance(body, Operation) else None
