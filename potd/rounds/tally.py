"""What a quorum of reports says, exactly. Everything that decides a round follows from reports by these functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any

from potd.rounds.events import Accuse, Effect
from potd.wire.codec import Malformed, encode
from potd.wire.envelope import Signed, Verified, attestation_of, verify
from potd.wire.ids import AccountId, BlobRef, Digest, Key, TaskId
from potd.wire.jobs import Judgement
from potd.wire.rounds import (
    MINER_BYTES,
    Commitment,
    Contribution,
    Outcome,
    Report,
    Seal,
    Step,
    Update,
    commitment_name,
    flags_of,
    positions,
    report_fault,
)


@dataclass(frozen=True)
class Electorate:
    """Whose reports count, and how many decide."""

    network: Digest
    keys: tuple[Key, ...]
    quorum: int
    some_honest: int  # f + 1
    base: int = 0  # the last height that others decided


def name_of(message: Verified[Commitment]) -> Digest:
    return commitment_name(message.body.miner, message.signed.payload)


def two_words(first: Verified[Any], other: Verified[Any], what: str, own: Key) -> list[Effect]:
    """Two answers of one key to a question to which a correct validator has one, restarts included, prove its guilt."""
    if first.body == other.body or first.sender == own:
        return []
    return [Accuse(first.sender, what, (first.signed, other.signed))]


def read_reports(
    signed: Sequence[Signed], task: TaskId, number: int, step: Step, electorate: Electorate
) -> tuple[Report, ...]:
    """The reports of a quorum, checked. Raises Malformed with what is wrong."""
    return _checked([verify(one, electorate.network, Report) for one in signed], task, number, step, electorate)


def _checked(
    reports: Sequence[Verified[Report]], task: TaskId, number: int, step: Step, electorate: Electorate
) -> tuple[Report, ...]:
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


def named(reports: Sequence[Report], some_honest: int) -> tuple[Digest, ...]:
    """The commitments that f + 1 of the reports name, in order: so an honest replica has them, and can serve them.

    A miner of which two are named so often has said two things, and is left out.
    """
    counts = Counter(name for report in reports for name in report.names)
    enough = sorted(name for name, count in counts.items() if count >= some_honest)
    miners = Counter(name[:MINER_BYTES] for name in enough)
    return tuple(name for name in enough if miners[name[:MINER_BYTES]] == 1)


def make_seal(
    task: TaskId, number: int, reports: Sequence[Verified[Report]], held: Mapping[Digest, Signed], some_honest: int
) -> Seal | tuple[Digest, ...]:
    """The seal that these reports oblige to, or the names of the commitments that are not held yet."""
    due = named([one.body for one in reports], some_honest)
    missing = tuple(name for name in due if name not in held)
    if missing:
        return missing
    return written_once(task, number, reports, tuple(held[name] for name in due))


def written_once(
    task: TaskId, number: int, reports: Sequence[Verified[Report]], commitments: tuple[Signed, ...]
) -> Seal:
    """A seal of these commitments, with what the reports name written once."""
    names = tuple(sorted({name for one in reports for name in one.body.names}))
    ordered = sorted(reports, key=lambda one: one.sender)
    sets = [frozenset(one.body.names) for one in ordered]
    return Seal(
        task,
        number,
        names,
        tuple(attestation_of(one.signed) for one in ordered),
        tuple(positions([name in each for name in names]) for each in sets),
        tuple(one.body.ticks for one in ordered),
        commitments,
    )


def seal_reports(
    seal: Seal, network: Digest, known: Mapping[Key, Verified[Report]] | None = None
) -> tuple[Verified[Report], ...]:
    """The reports that were signed, rebuilt and checked; of those `known` already no signature is checked again.

    Raises Malformed for a wrong signature, and for a seal that says the same in another way than `written_once`."""
    if not len(seal.reports) == len(seal.held) == len(seal.ticks):
        raise Malformed("not as many sets and ticks as reports")
    if any(upper >= lower for upper, lower in zip(seal.names, seal.names[1:], strict=False)):
        raise Malformed("names twice, or out of order")
    reports: list[Verified[Report]] = []
    used: set[Digest] = set()
    for attestation, held, ticks in zip(seal.reports, seal.held, seal.ticks, strict=True):
        names = tuple(compress(seal.names, flags_of(held, len(seal.names))))
        used.update(names)
        body = Report(seal.task, seal.round, Step.SEAL.value, names, (), (), b"", ticks)
        before = known.get(attestation.key) if known is not None else None
        if before is not None and before.body == body and before.signed.signature == attestation.signature:
            reports.append(before)
        else:
            reports.append(verify(Signed(attestation.key, encode(body), attestation.signature), network, Report))
    if len(used) < len(seal.names):
        raise Malformed("a name that no report has")
    return tuple(reports)


def seal_fault(
    seal: Seal,
    electorate: Electorate,
    known: Mapping[Key, Verified[Report]] | None = None,
    held: Mapping[Digest, Signed] | None = None,
) -> str:
    """Why this seal does not follow from its reports, or nothing if it does.

    `known` reports and `held` commitments, by name, have been checked when they came."""
    try:
        rebuilt = seal_reports(seal, electorate.network, known)
        reports = _checked(rebuilt, seal.task, seal.round, Step.SEAL, electorate)
        due = named(reports, electorate.some_honest)
        if len(due) != len(seal.commitments):
            raise Malformed("the commitments are not those that f + 1 reports name")
        for name, signed in zip(due, seal.commitments, strict=True):
            if held is not None and held.get(name) == signed:
                continue  # it was named and compared with the round when it came
            one = verify(signed, electorate.network, Commitment)
            if name_of(one) != name:
                raise Malformed("the commitments are not those that f + 1 reports name")
            if (one.body.task, one.body.round) != (seal.task, seal.round):
                raise Malformed("a commitment of another round")
    except Malformed as error:
        return str(error)
    return ""


@dataclass(frozen=True)
class Choice:
    """What an update has to add up: the revealed commitments in order, and what becomes of the others."""

    counted: tuple[Commitment, ...]
    outcomes: tuple[tuple[AccountId, Outcome], ...]  # one for each sealed commitment, by miner
    chosen: bytes  # positions of the counted in what was sealed: a short name for this sum, within its round

    def payloads(self) -> tuple[BlobRef, ...]:
        return tuple(one.payload for one in self.counted)


def choose(
    reports: Sequence[Report], sealed: Sequence[Commitment], some_honest: int, probation: Collection[AccountId] = ()
) -> Choice:
    """Exactly the sealed commitments whose payloads f + 1 reports hold, but for those of miners on probation. Raises
    Malformed for a report that speaks of another number of commitments than were sealed."""
    holders = [0] * len(sealed)
    for report in reports:
        for position in compress(range(len(sealed)), flags_of(report.held, len(sealed))):
            holders[position] += 1
    outcomes = [
        Outcome.NON_FINITE
        if not one.finite
        else Outcome.WITHHELD
        if count < some_honest
        else Outcome.PROBATION
        if one.miner in probation
        else Outcome.COUNTED
        for one, count in zip(sealed, holders, strict=True)
    ]
    counts = [outcome == Outcome.COUNTED for outcome in outcomes]
    return Choice(
        tuple(compress(sealed, counts)),
        tuple((one.miner, outcome) for one, outcome in zip(sealed, outcomes, strict=True)),
        positions(counts),
    )


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
            contributions.append(Contribution(miner, judged[miner].outcome, judged[miner].weight, judged[miner].norm))
        else:
            contributions.append(Contribution(miner, outcome.value, 0))
    aggregate, model, momentum = results
    return Update(task, number, tuple(reports), tuple(contributions), aggregate, model, momentum)
