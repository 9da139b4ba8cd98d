"""Messages of PBFT (Castro & Liskov 1999, section 4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from potd.wire.blocks import Batch, Certificate, Header
from potd.wire.codec import U63, Size, encode, message
from potd.wire.envelope import PAYLOAD_BYTES_MAX, Attestation, Signature, Signed
from potd.wire.ids import Digest, Key, digest
from potd.wire.rounds import VALIDATORS_MAX

IN_FLIGHT_MAX = 1024  # sequence numbers between the watermarks
ATTESTATION_BYTES = 104  # encoded, at most
VOTE_BYTES = 512  # a Signed of an order, an agreement, a commitment, a refusal or a header, encoded, at most


@message(60)
@dataclass(frozen=True)
class PrePrepare:
    """The primary's order: this batch at this sequence number. [4.2]"""

    view: U63
    seq: U63
    batch: Digest


@message(61)
@dataclass(frozen=True)
class Proposal:
    """A signed PrePrepare and the batch it names; how the order and the request travel together. [4.2]"""

    pre_prepare: Signed
    batch: Batch


@message(62)
@dataclass(frozen=True)
class Prepare:
    """A backup's agreement to the order. Carries the primary's signature: halves of an equivocation meet. [4.2]"""

    view: U63
    seq: U63
    batch: Digest
    primary: Signature


@message(63)
@dataclass(frozen=True)
class Commit:
    """The batch is prepared here. [4.2]"""

    view: U63
    seq: U63
    batch: Digest


@message(64)
@dataclass(frozen=True)
class Prepared:
    """Proof that a batch was prepared: the primary's order and a quorum's agreement, as signatures. [4.4, set P]"""

    view: U63
    seq: U63
    batch: Digest
    primary: Attestation  # over PrePrepare(view, seq, batch)
    backups: Annotated[tuple[Attestation, ...], Size(0, VALIDATORS_MAX)]  # over Prepare(..., primary.signature), by key


@message(65)
@dataclass(frozen=True)
class ViewChange:
    """A replica leaves its view, and shows what it may have committed. [4.4]"""

    view: U63  # the view it moves to
    stable: U63
    certificate: Annotated[tuple[Certificate, ...], Size(0, 1)]  # of the stable checkpoint; none at genesis [C]
    prepared: Annotated[tuple[Prepared, ...], Size(0, IN_FLIGHT_MAX)]  # above it, by seq [P]


@message(66)
@dataclass(frozen=True)
class NewView:
    """The new primary's proof that it may begin, and what it carries over. [4.4]"""

    view: U63
    view_changes: Annotated[tuple[Signed, ...], Size(1, VALIDATORS_MAX)]  # ViewChange, by key [V]
    pre_prepares: Annotated[tuple[Signed, ...], Size(0, IN_FLIGHT_MAX)]  # PrePrepare, by seq [O]


def quorum_of(validators: int) -> int:
    """⌈(n + f + 1) / 2⌉: any two such sets of n share an honest member."""
    return (validators + (validators - 1) // 3 + 2) // 2


def new_view_bytes(validators: int, window: int) -> int:
    """The most that a new view can come to: a quorum of view changes, each with a proof for every seq of the window."""
    quorum = quorum_of(validators)
    certificate = 512 + quorum * ATTESTATION_BYTES
    return quorum * (certificate + window * (256 + quorum * ATTESTATION_BYTES)) + window * 256


@message(67)
@dataclass(frozen=True)
class Refusal:
    """A backup's judgement against the order. Carries the primary's signature, as an agreement does: who has not seen
    the order learns of it, and a quorum of them proves it wrong."""

    view: U63
    seq: U63
    batch: Digest
    primary: Signature
    reason: Annotated[str, Size(1, 256)]


@message(68)
@dataclass(frozen=True)
class Status:
    """Where a replica stands, told now and then: whoever has what it lacks sends it again. [Castro 2001, 5.2]"""

    view: U63
    changing: bool
    stable: U63
    executed: U63


@message(69)
@dataclass(frozen=True)
class Recollect:
    """I have started: what did I say last? `boot` is drawn at every start, so that no older answer can be replayed."""

    boot: Digest


VOTES_A_SLOT = 5  # of one replica, the newest of each: order, agreement, commitment, refusal, header
NEWEST_SHOWN = 3  # and its newest header, view change and new view of all
REPORTS_SHOWN = 1024  # reports and drafts of its on rounds that are not past


@message(70)
@dataclass(frozen=True)
class Recollected:
    """What we hold of the asker's words above our stable checkpoint, which the certificate proves: of each kind the
    newest for each seq; and its newest header, view change and new view. `reports` names the asker's reports and drafts
    that were sent to it before this, as they were heard: see `report_name`."""

    boot: Digest
    asker: Key
    certificate: Annotated[tuple[Certificate, ...], Size(0, 1)]  # of our stable checkpoint; none at genesis
    votes: Annotated[tuple[Signed, ...], Size(0, VOTES_A_SLOT * IN_FLIGHT_MAX + NEWEST_SHOWN)]
    reports: Annotated[tuple[Digest, ...], Size(0, REPORTS_SHOWN)]


def report_name(signed: Signed) -> Digest:
    """What a report or draft is called where it is not shown."""
    return digest("report", encode(signed))


def recollected_bytes(validators: int, window: int) -> int:
    """The most that an answer to Recollect can come to: a new view, a view change, and what was said of each seq."""
    quorum = (validators + (validators - 1) // 3 + 2) // 2
    certificate = 512 + quorum * ATTESTATION_BYTES
    view_change = certificate + window * (256 + quorum * ATTESTATION_BYTES)
    return (
        new_view_bytes(validators, window)
        + view_change
        + window * VOTES_A_SLOT * VOTE_BYTES
        + certificate
        + 40 * REPORTS_SHOWN
    )


def can_change_views(validators: int, window: int) -> bool:
    """Whether so many validators can hold a network with this window: what shows a new view must fit a message."""
    return validators <= VALIDATORS_MAX and recollected_bytes(validators, window) <= PAYLOAD_BYTES_MAX


Word = PrePrepare | Prepare | Commit | Header | ViewChange | NewView | Refusal | Status | Recollect | Recollected
WORDS = (  # all that replicas sign
    PrePrepare,
    Prepare,
    Commit,
    Header,
    ViewChange,
    NewView,
    Refusal,
    Status,
    Recollect,
    Recollected,
)
