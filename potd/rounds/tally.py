"""What a quorum of reports says, exactly. Everything that decides a round follows from reports by these functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from potd.wire.codec import Malformed
from potd.wire.envelope import Signed, Verified, verify
from potd.wire.ids import AccountId, BlobRef, Digest, Key, TaskId, digest
from potd.wire.jobs import Judgement
from potd.wire.rounds import Commitment, Contribution, Outcome, Report, Seal, Step, Update, report_fault


@dataclass(frozen=True)
class Electorate:
    """Whose reports count, and how many decide."""

    network: Digest
    keys: tuple[Key, ...]
    quorum: int
    some_honest: int  # f + 1


def commitment_name(payload: bytes) -> Digest:
    """How reports name a commitment: by its bytes without the signature."""
    return digest("commitment", payload)


def read_reports(
    signed: Sequence[Signed], task: TaskId, number: int, step: Step, electorate: Electorate
) -> tuple[Report, ...]:
    """The reports of a quorum, checked. Raises Malformed with what is wrong."""
    reports = [verify(one, electorate.network, Report) for one in signed]
    keys = [one.sender for one in reports]
    if keys != sorted(set(keys)) or any(key not in electorate.keys for key in keys):
        raise Malformed("reports out of order, twice, or by strangers")
    if len(keys) < electorate.quorum:
        raise Malformed(f"{len(keys)} reports of {electorate.quorum}")
    for one in reports:
        if (one.body.task, one.body.round, one.body.step) != (task, number, step):
            raise Malformed("a report of another round or step")
        fault = report_fault(one.body)
        if fault:
            raise Malformed(fault)
    return tuple(one.body for one in reports)


def named(reports: Sequence[Report], some_honest: int) -> dict[AccountId, Digest]:
    """What f + 1 of the reports hold, by subject: so an honest replica has it, and can serve it.

    A subject of which two digests are named so often has said two things, and is left out.
    """
    counts: dict[tuple[AccountId, Digest], int] = {}
    for report in reports:
        for pair in sorted({(one.subject, one.digest) for one in report.held}):
            counts[pair] = counts.get(pair, 0) + 1
    enough = [pair for pair, count in sorted(counts.items()) if count >= some_honest]
    subjects = [subject for subject, _ in enough]
    return {subject: name for subject, name in enough if subjects.count(subject) == 1}


def make_seal(
    task: TaskId, number: int, reports: Sequence[Verified[Report]], held: Mapping[Digest, Signed], some_honest: int
) -> Seal | tuple[Digest, ...]:
    """The seal that these reports oblige to, or the names of the commitments that are not held yet."""
    due = named([one.body for one in reports], some_honest)
    missing = tuple(name for name in due.values() if name not in held)
    if missing:
        return missing
    commitments = tuple(held[due[miner]] for miner in sorted(due))
    ordered = sorted(reports, key=lambda one: one.sender)
    return Seal(task, number, tuple(one.signed for one in ordered), commitments)


def seal_fault(seal: Seal, electorate: Electorate) -> str:
    """Why this seal does not follow from its reports, or nothing if it does."""
    try:
        reports = read_reports(seal.reports, seal.task, seal.round, Step.SEAL, electorate)
        commitments = [verify(one, electorate.network, Commitment) for one in seal.commitments]
    except Malformed as error:
        return str(error)
    due = named(reports, electorate.some_honest)
    shown = [(one.body.miner, commitment_name(one.signed.payload)) for one in commitments]
    if shown != sorted(due.items()):
        return "the commitments are not those that f + 1 reports name"
    for one in commitments:
        if (one.body.task, one.body.round) != (seal.task, seal.round):
            return "a commitment of another round"
    return ""


@dataclass(frozen=True)
class Choice:
    """What an update has to add up: the revealed commitments in order, and what becomes of the others."""

    counted: tuple[Commitment, ...]
    outcomes: tuple[tuple[AccountId, Outcome], ...]  # one for each sealed commitment, by miner

    def payloads(self) -> tuple[BlobRef, ...]:
        return tuple(one.payload for one in self.counted)


def choose(reports: Sequence[Report], sealed: Sequence[Commitment], some_honest: int) -> Choice:
    """Exactly the sealed commitments whose payloads f + 1 reports hold."""
    revealed = named(reports, some_honest)
    counted: list[Commitment] = []
    outcomes: list[tuple[AccountId, Outcome]] = []
    for one in sealed:
        outcome = Outcome.COUNTED
        if not one.finite:
            outcome = Outcome.NON_FINITE
        elif revealed.get(one.miner) != one.payload.root:
            outcome = Outcome.WITHHELD
        else:
            counted.append(one)
        outcomes.append((one.miner, outcome))
    return Choice(tuple(counted), tuple(outcomes))


def make_update(
    task: TaskId,
    number: int,
    reports: Sequence[Signed],
    choice: Choice,
    judgements: Sequence[Judgement],
    results: tuple[BlobRef, BlobRef, BlobRef],
) -> Update:
    """The update that follows from a choice and what aggregation made of it: aggregate, model and momentum."""
    assert len(judgements) == len(choice.counted)
    judged = {one.miner: judgement for one, judgement in zip(choice.counted, judgements, strict=True)}
    contributions: list[Contribution] = []
    for miner, outcome in choice.outcomes:
        if miner in judged:
            contributions.append(Contribution(miner, judged[miner].outcome, judged[miner].weight))
        else:
            contributions.append(Contribution(miner, outcome.value, 0))
    aggregate, model, momentum = results
    return Update(task, number, tuple(reports), tuple(contributions), aggregate, model, momentum)
