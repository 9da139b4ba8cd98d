"""Messages of a training round: what miners commit to, what validators report, draft and agree on."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated

from potd.wire.codec import I64, U8, U32, U63, Range, Size, message
from potd.wire.envelope import Signed
from potd.wire.ids import AccountId, BlobRef, Digest, TaskId, digest
from potd.wire.tasks import BATCH_SAMPLES_MAX

MINERS_MAX = 4096
VALIDATORS_MAX = 1024


class Step(IntEnum):
    """What a report is about."""

    SEAL = 1
    UPDATE = 2
    EVALUATION = 3


class Outcome(IntEnum):
    """What became of a sealed contribution."""

    COUNTED = 0
    WITHHELD = 1  # fewer than f + 1 reports name its payload
    MALFORMED = 2  # the payload is not an encoding of the task
    NON_FINITE = 3  # the miner itself says that its gradient was not finite


@message(40)
@dataclass(frozen=True)
class Commitment:
    """A miner binds itself to a payload before anybody sees it."""

    task: TaskId
    round: U63
    miner: AccountId
    model: Digest  # the root of the model that the gradient was taken at
    payload: BlobRef
    samples: Annotated[int, Range(1, BATCH_SAMPLES_MAX)]
    finite: bool
    loss_micro: I64  # mean loss over its batch, millionths of a nat; what the miner says
    feedback: Digest  # error-feedback state after this round
    rig_class: Annotated[str, Size(1, 32)]
    salt: Digest


def payload_binding(task: TaskId, number: int, miner: AccountId, model: Digest) -> Digest:
    """What a payload begins with, so that it is worth nothing to another miner, or in another round."""
    return digest("payload", task, number.to_bytes(8, "big"), miner, model)


@message(41)
@dataclass(frozen=True, order=True)
class Named:
    """A subject, what the reporter holds of it by digest, and when it came, in ticks since the step began."""

    subject: AccountId
    digest: Digest
    ticks: U32


@message(42)
@dataclass(frozen=True)
class Measured:
    """One replica's evaluation of a round's model on the held-out shards."""

    round: U63
    correct: U63
    samples: U63
    loss_micro: I64  # mean, millionths of a nat


@message(43)
@dataclass(frozen=True)
class Report:
    """What one validator holds at the end of its patience, for one step of one round. Final once signed."""

    task: TaskId
    round: U63
    step: U8
    held: Annotated[tuple[Named, ...], Size(0, MINERS_MAX)]  # by subject; seal: commitments, update: payloads
    links: Annotated[
        tuple[Named, ...], Size(0, VALIDATORS_MAX)
    ]  # by subject; released links of validators' hash chains
    measured: Annotated[tuple[Measured, ...], Size(0, 16)]


def report_fault(report: Report) -> str:
    """Why this is no honest report, whatever it is about, or nothing: each subject stands in it once, in order."""
    subjects = [one.subject for one in report.held]
    if subjects != sorted(set(subjects)):
        return "report that names a subject twice, or out of order"
    if report.links:
        return "report with links, which protocol 1 does not release"
    return ""


@message(44)
@dataclass(frozen=True)
class Draft:
    """The primary's choice of reports, so that everybody can aggregate before the pre-prepare."""

    view: U63
    task: TaskId
    round: U63
    step: U8
    reports: Annotated[tuple[Signed, ...], Size(1, VALIDATORS_MAX)]  # Report, by key


@message(45)
@dataclass(frozen=True)
class Seal:
    """The commitments that may count: exactly those that f + 1 of a quorum of reports name."""

    task: TaskId
    round: U63
    reports: Annotated[tuple[Signed, ...], Size(1, VALIDATORS_MAX)]  # Report, by key
    commitments: Annotated[tuple[Signed, ...], Size(0, MINERS_MAX)]  # Commitment, by miner


@message(46)
@dataclass(frozen=True)
class Contribution:
    """What became of one sealed commitment."""

    miner: AccountId
    outcome: U8
    weight: U32  # sixteen-bit fixed point: 65536 is unclipped


@message(47)
@dataclass(frozen=True)
class Update:
    """The agreed end of a round: what counted, its aggregate, and the model that follows."""

    task: TaskId
    round: U63
    reports: Annotated[tuple[Signed, ...], Size(1, VALIDATORS_MAX)]  # Report, by key
    contributions: Annotated[tuple[Contribution, ...], Size(0, MINERS_MAX)]  # by miner, one for each sealed commitment
    aggregate: BlobRef
    model: BlobRef
    momentum: BlobRef


@message(48)
@dataclass(frozen=True)
class Evaluation:
    """How well a round's model does on the held-out shards: the lower median of what a quorum's reports measured."""

    task: TaskId
    round: U63
    reports: Annotated[tuple[Signed, ...], Size(1, VALIDATORS_MAX)]  # Report, by key
