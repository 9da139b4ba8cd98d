"""Audits: promises, verdicts and rulings about contributions of past rounds, and what follows from them.

A validator promises what it has found, then tells it. A contribution that is called bad is contested: every validator
rules. A quorum of the present seats against it slashes its miner; a quorum for it fines whoever called it bad. A
validator that has told what it found has ruled with that; of two things that it has said, the first counts.
"""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from potd.ledger import bonds, chains, rewards, seats
from potd.ledger.clock import AuditPhase, audit_phase
from potd.ledger.entries import Past, Promised, Row, Standing, Task, Voice, past_key
from potd.ledger.working import Working
from potd.wire.audits import Audit, Chain, Finding, Promise, Ruling, Status, Verdict, drawn, promised
from potd.wire.consensus import quorum_of
from potd.wire.ids import AccountId, short
from potd.wire.rounds import VALIDATORS_MAX
from potd.wire.tasks import TaskSpec


def operate(work: Working, operation: Audit) -> str:
    """What a validator asks as an auditor. Changes nothing where it gives a reason."""
    if operation.account not in work.paid():
        return "only who has a seat audits"
    match operation:
        case Chain():
            return chains.publish(work, operation)
        case Promise():
            return _promise(work, operation)
        case Verdict():
            return _verdict(work, operation)
        case Ruling():
            return _ruling(work, operation)
        case _:
            assert_never(operation)


def _promise(work: Working, operation: Promise) -> str:
    found = _audited(work, operation)
    if isinstance(found, str):
        return found
    task, _, past, phase = found
    if phase != AuditPhase.PROMISE:
        return f"the time to promise findings of round {past.round} is over"
    if _promised(past, operation.account) is not None:
        return f"it has promised its findings of round {past.round} already"
    if len(past.promises) >= VALIDATORS_MAX:  # by those, too, that have no seat any more
        return f"{VALIDATORS_MAX} have promised their findings of round {past.round}"
    own = work.chains(task.id, operation.account)
    if own is None or not chains.has_link(own, past.round):
        return f"no chain of its own draws from round {past.round}"
    made = Promised(operation.account, operation.findings, False)
    _put(work, replace(past, promises=(*past.promises, made)))
    return ""


def _verdict(work: Working, operation: Verdict) -> str:
    found = _audited(work, operation)
    if isinstance(found, str):
        return found
    task, spec, past, phase = found
    if phase != AuditPhase.TELL:
        return f"findings of round {past.round} are not told now"
    author, number = operation.account, operation.round
    made = _promised(past, author)
    if made is None:
        return f"it has promised no findings of round {number}"
    if made.kept:
        return f"it has told its findings of round {number} already"
    if promised(author, task.id, number, operation.salt, operation.findings) != made.findings:
        return "findings that are not those that it has promised"
    own = work.chains(task.id, author)
    if own is None or not chains.is_lot(own, number, operation.link):
        return f"not its link for round {number}"
    contributions = ((row.miner, row.outcome) for row in past.rows)
    due = drawn(operation.link, past.seed, contributions, author, work.parameters.audit_ppm, past.validators)
    if tuple(one.miner for one in operation.findings) != due:
        return "findings that are not on what its link draws"
    faults = [fault for one in operation.findings if (fault := _fault(one, spec))]
    if faults:
        return faults[0]
    chains.lot_told(work, task.id, author, number, operation.link)
    rows = {one.miner: one for one in operation.findings}
    told = [_said(row, author, rows[row.miner], False) if row.miner in rows else row for row in past.rows]
    kept = tuple(replace(one, kept=True) if one is made else one for one in past.promises)
    _put(work, replace(past, promises=kept, rows=tuple(told)))
    for one in operation.findings:
        _judge(work, task.id, number, one.miner)
    return ""


def _ruling(work: Working, operation: Ruling) -> str:
    found = _audited(work, operation)
    if isinstance(found, str):
        return found
    task, spec, past, phase = found
    author, finding = operation.account, operation.finding
    if phase == AuditPhase.OVER:
        return f"the time to rule on round {past.round} is over"
    at = bonds.row_of(past, finding.miner)
    # One that comes when a quorum has decided already is heard all the same: several are on their way at a time.
    if at is None or all(voice.status != Status.BAD for voice in past.rows[at].voices):
        return f"nothing of miner {short(finding.miner)} in round {past.round} is contested"
    if finding.miner == author:
        return "a ruling on what is its own"
    if author in _heard(past.rows[at]):
        return "it has ruled already"
    if sum(voice.ruling for voice in past.rows[at].voices) >= VALIDATORS_MAX:
        return f"{VALIDATORS_MAX} have ruled"
    fault = _fault(finding, spec)
    if not fault and finding.status == Status.UNABLE:
        fault = "a ruling that it cannot tell"
    if fault:
        return fault
    _put(work, bonds.with_row(past, at, _said(past.rows[at], author, finding, True)))
    _judge(work, task.id, past.round, finding.miner)
    return ""


def _audited(work: Working, operation: Promise | Verdict | Ruling) -> tuple[Task, TaskSpec, Past, AuditPhase] | str:
    """What an operation is about and what it is time for, or why there is nothing to say."""
    task = work.task(operation.task)
    if task is None:
        return f"there is no task {short(operation.task)}"
    past = work.past(task.id, operation.round)
    if past is None:
        return f"nothing of round {operation.round} of task {short(task.id)} can be judged"
    spec = work.spec(task.id)
    if not rewards.is_audited(spec):
        return f"nobody audits task {short(task.id)}"
    return task, spec, past, audit_phase(task, past, work.height, work.parameters)


def _promised(past: Past, account: AccountId) -> Promised | None:
    return next((one for one in past.promises if one.validator == account), None)


def _fault(finding: Finding, spec: TaskSpec) -> str:
    """Why a finding contradicts itself, or nothing. A bad one may be near: exponents are judged apart."""
    if finding.status not in tuple(Status):
        return f"a finding of status {finding.status}"
    if finding.status == Status.UNABLE and finding.distance_nano:
        return "a distance without a replay"
    if finding.status == Status.GOOD and finding.distance_nano > spec.tolerance_nano:
        return f"a good finding at {finding.distance_nano}, the tolerance is {spec.tolerance_nano}"
    return ""


def _said(row: Row, author: AccountId, finding: Finding, ruling: bool) -> Row:
    """A row with one more voice; what nobody had called bad before is contested from then on."""
    voice = Voice(author, ruling, finding.status, finding.distance_nano)
    contested = finding.status == Status.BAD and row.standing == Standing.UNCONTESTED
    standing = Standing.CONTESTED.value if contested else row.standing
    return replace(row, standing=standing, voices=(*row.voices, voice))


def _heard(row: Row) -> dict[AccountId, int]:
    """What each validator has said first, unless it could not tell."""
    heard: dict[AccountId, int] = {}
    for voice in row.voices:
        if voice.status != Status.UNABLE:
            heard.setdefault(voice.validator, voice.status)
    return heard


def _judge(work: Working, name: bytes, number: int, miner: AccountId) -> None:
    """What the voices on a contribution come to, now that there is one more."""
    task, past = work.task(name), work.past(name, number)
    assert task is not None and past is not None, "a judgement of nothing"
    at = bonds.row_of(past, miner)
    assert at is not None, "a judgement of nothing"
    row = past.rows[at]
    present = set(work.paid())
    heard = {account: status for account, status in _heard(row).items() if account in present}
    quorum = quorum_of(len(work.seats))
    bad = [account for account, status in heard.items() if status == Status.BAD]
    good = len(heard) - len(bad)
    if row.standing == Standing.CONTESTED and len(bad) >= quorum:
        bonds.slash(work, task, miner, bad)
    elif row.standing == Standing.CONTESTED and good >= quorum:
        _put(work, bonds.with_row(past, at, replace(row, standing=Standing.CLEARED.value)))
        for voice in row.voices:
            _overturned(work, task, miner, voice)
    elif row.standing == Standing.CLEARED:
        _overturned(work, task, miner, row.voices[-1])


def _overturned(work: Working, task: Task, miner: AccountId, voice: Voice) -> None:
    """A verdict that a quorum contradicts: its author pays the miner as much as the miner would have lost."""
    bond = work.bond(task.id, miner)
    if bond is None or voice.ruling or voice.status != Status.BAD:
        return
    work.credit(miner, seats.fined(work, voice.validator, bond.required_micro))


def _put(work: Working, past: Past) -> None:
    work.put(past_key(past.task, past.round), past)
