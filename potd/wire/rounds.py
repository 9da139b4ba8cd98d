"""Messages of a training round: what miners commit to, what validators report, draft and agree on.

A report of commitments names them, since nothing else tells yet what there is; a report of payloads is a set of
positions in what was sealed. A set of positions, of so many, is as many bits as there are positions, the first one the
highest bit of the first byte, and zeros up to a whole byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated

from potd.wire.codec import I64, U8, U32, U63, Malformed, Range, Size, message
from potd.wire.envelope import Attestation, Signed
from potd.wire.ids import AccountId, BlobRef, Digest, TaskId, digest
from potd.wire.tasks import BATCH_SAMPLES_MAX

MINERS_MAX = 4096
VALIDATORS_MAX = 1024
NAMES_MAX = 131_072  # commitments that all reports of a seal name together

MINER_BYTES = 12  # of a commitment's name: its miner, who so stands in a report once


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
    PROBATION = 4  # revealed, and not counted: its miner has no bond yet


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


def commitment_name(miner: AccountId, payload: bytes) -> Digest:
    """How reports name a commitment: twelve bytes of its miner, twenty of a digest of its bytes without the signature.

    A miner that finds two commitments of one name, in 2^80 trials, has made them both before the seal, and everybody
    agrees on which of the two a seal shows. Another account of the same twelve bytes, so that a report can name only
    one of the two, takes 2^96 trials for a given miner; two accounts of one's own, in 2^48, hurt nobody else."""
    return miner[:MINER_BYTES] + digest("commitment", payload)[: 32 - MINER_BYTES]


def positions(flags: Sequence[bool]) -> bytes:
    """The set of the positions that are true."""
    size = (len(flags) + 7) // 8
    bits = "".join("1" if flag else "0" for flag in flags).ljust(8 * size, "0")
    return int(bits or "0", 2).to_bytes(size, "big")


def flags_of(data: bytes, count: int) -> tuple[bool, ...]:
    """The same set of `count` positions, each true or false. Raises Malformed if it is none of so many."""
    if len(data) != (count + 7) // 8:
        raise Malformed(f"a set of {count} positions in {len(data)} bytes")
    bits = f"{int.from_bytes(data, 'big'):0{8 * len(data)}b}" if data else ""
    if "1" in bits[count:]:
        raise Malformed(f"a set with a position beyond {count}")
    return tuple([bit == "1" for bit in bits[:count]])


@message(41)
@dataclass(frozen=True, order=True)
class Named:
    """A validator, and the link of its hash chain that it has released."""

    subject: AccountId
    digest: Digest


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
    names: Annotated[tuple[Digest, ...], Size(0, MINERS_MAX)]  # seal: of the commitments held, in order
    links: Annotated[tuple[Named, ...], Size(0, VALIDATORS_MAX)]  # update: those released and held, by subject
    measured: Annotated[tuple[Measured, ...], Size(0, 16)]
    held: Annotated[bytes, Size(0, MINERS_MAX // 8)] = b""  # update: of the payloads held, positions in what was sealed
    ticks: U32 = 0  # when the last of these came, since the step began


def report_fault(report: Report) -> str:
    """Why this is no honest report, whatever the state, or nothing. Each subject stands in it once, in order."""
    miners = [name[:MINER_BYTES] for name in report.names]
    if miners != sorted(set(miners)):
        return "report that names a miner twice, or out of order"
    if (report.names and report.step != Step.SEAL) or ((report.held or report.links) and report.step != Step.UPDATE):
        return "report that holds something of another step"
    subjects = [one.subject for one in report.links]
    if subjects != sorted(set(subjects)):
        return "report that names a validator's link twice, or out of order"
    return ""


@message(44)
@dataclass(frozen=True)
class Draft:
    """The primary's choice of reports, so that everybody can aggregate before the pre-prepare."""

    base: U63  # the last height that earlier validators decided: each set of validators counts its views from 0
    view: U63
    task: TaskId
    round: U63
    step: U8
    reports: Annotated[tuple[Signed, ...], Size(1, VALIDATORS_MAX)]  # Report, by key


@message(45)
@dataclass(frozen=True)
class Seal:
    """The commitments that may count: exactly those that f + 1 of a quorum of reports name.

    Reports name nearly the same, so it is written once; whoever reads rebuilds each report that was signed."""

    task: TaskId
    round: U63
    names: Annotated[tuple[Digest, ...], Size(0, NAMES_MAX)]  # all that the reports name, in order
    reports: Annotated[tuple[Attestation, ...], Size(1, VALIDATORS_MAX)]  # over a Report, by key
    # Of each report, by its place: the positions of what it names, and its ticks.
    held: Annotated[tuple[Annotated[bytes, Size(0, NAMES_MAX // 8)], ...], Size(1, VALIDATORS_MAX)]
    ticks: Annotated[tuple[U32, ...], Size(1, VALIDATORS_MAX)]
    commitments: Annotated[tuple[Signed, ...], Size(0, MINERS_MAX)]  # Commitment, by miner


@message(46)
@dataclass(frozen=True)
class Contribution:
    """What became of one sealed commitment."""

    miner: AccountId
    outcome: U8
    weight: U32  # sixteen-bit fixed point: 65536 is unclipped
    norm: U63 = 0  # L2 norm of what was revealed, in steps of 2 to the encoding's least exponent, rounded down


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


@message(49)
@dataclass(frozen=True)
class Link:
    """A validator releases the link of its hash chain that goes into the seed after a round: once that round's seal is
    certified, so that whoever chose the seal could not know it."""

    task: TaskId
    round: U63
    account: AccountId
    link: Digest
